"""Direct feedback alignment: train any PyTorch model with it, see whether it aligns, know when it will.

Names are imported when first used, so `import feedalign` is quick and the theory never loads torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from feedalign import (
        alignment,
        anatomy,
        diagnosis,
        errors,
        feedback,
        geometry,
        lab,
        networks,
        rules,
        theory,
        verify,
    )
    from feedalign.alignment import (
        AlignmentMonitor,
        alignability,
        conditioning,
        cross_seed_overlap,
        gradient_alignment,
        weight_alignment,
    )
    from feedalign.diagnosis import Diagnosis, diagnose
    from feedalign.errors import FeedalignError
    from feedalign.rules import (
        DFA,
        DRTP,
        FA,
        Backprop,
        ConditionedDFA,
        DirectKolenPollack,
        Frozen,
        KolenPollack,
        ReadoutOnly,
        SignSymmetry,
        Wrapped,
        register_linear_layer,
    )
    from feedalign.verify import check_rule, validate

__version__ = "0.1.0"

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules=[
        "alignment",
        "anatomy",
        "diagnosis",
        "errors",
        "feedback",
        "geometry",
        "lab",
        "networks",
        "rules",
        "theory",
        "verify",
    ],
    submod_attrs={
        "alignment": [
            "AlignmentMonitor",
            "alignability",
            "conditioning",
            "cross_seed_overlap",
            "gradient_alignment",
            "weight_alignment",
        ],
        "diagnosis": ["Diagnosis", "diagnose"],
        "errors": ["FeedalignError"],
        "rules": [
            "DFA",
            "DRTP",
            "FA",
            "Backprop",
            "ConditionedDFA",
            "DirectKolenPollack",
            "Frozen",
            "KolenPollack",
            "ReadoutOnly",
            "SignSymmetry",
            "Wrapped",
            "register_linear_layer",
        ],
        "verify": ["check_rule", "validate"],
    },
)

__all__ = [
    "DFA",
    "DRTP",
    "FA",
    "AlignmentMonitor",
    "Backprop",
    "ConditionedDFA",
    "Diagnosis",
    "DirectKolenPollack",
    "FeedalignError",
    "Frozen",
    "KolenPollack",
    "ReadoutOnly",
    "SignSymmetry",
    "Wrapped",
    "alignability",
    "alignment",
    "anatomy",
    "check_rule",
    "conditioning",
    "cross_seed_overlap",
    "diagnose",
    "diagnosis",
    "errors",
    "feedback",
    "geometry",
    "gradient_alignment",
    "lab",
    "networks",
    "register_linear_layer",
    "rules",
    "theory",
    "validate",
    "verify",
    "weight_alignment",
]
