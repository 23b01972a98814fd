# What `import feedalign` gives. `__init__.py` reads this file, so a name that is added here is there.

from . import alignment as alignment
from . import anatomy as anatomy
from . import diagnosis as diagnosis
from . import errors as errors
from . import feedback as feedback
from . import geometry as geometry
from . import lab as lab
from . import networks as networks
from . import rules as rules
from . import theory as theory
from . import verify as verify
from .alignment import AlignmentMonitor as AlignmentMonitor
from .alignment import alignability as alignability
from .alignment import conditioning as conditioning
from .alignment import cross_seed_overlap as cross_seed_overlap
from .alignment import gradient_alignment as gradient_alignment
from .alignment import weight_alignment as weight_alignment
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose as diagnose
from .errors import FeedalignError as FeedalignError
from .rules import DFA as DFA
from .rules import DRTP as DRTP
from .rules import FA as FA
from .rules import Backprop as Backprop
from .rules import ConditionedDFA as ConditionedDFA
from .rules import DirectKolenPollack as DirectKolenPollack
from .rules import Frozen as Frozen
from .rules import KolenPollack as KolenPollack
from .rules import ReadoutOnly as ReadoutOnly
from .rules import SignSymmetry as SignSymmetry
from .rules import Wrapped as Wrapped
from .rules import register_linear_layer as register_linear_layer
from .verify import check_rule as check_rule
from .verify import validate as validate

__all__: list[str]
__version__: str
