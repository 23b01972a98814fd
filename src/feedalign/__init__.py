"""Direct feedback alignment: train any PyTorch model with it, see whether it aligns, know when it will.

Names are imported when first used, so `import feedalign` is quick and the theory never loads torch. They stand in the
file `__init__.pyi`, which is read here and by type checkers.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
