"""The rules by name, for command lines and sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from feedalign.checks import one_of
from feedalign.rules.controls import Backprop, Frozen, ReadoutOnly
from feedalign.rules.direct import DFA, DRTP, ConditionedDFA, DirectKolenPollack, DirectRule
from feedalign.rules.sequential import FA, KolenPollack, SequentialRule, SignSymmetry

AnyRule = type[DirectRule] | type[SequentialRule]

RULES: Mapping[str, AnyRule] = MappingProxyType(
    {
        "backprop": Backprop,
        "conditioned-dfa": ConditionedDFA,
        "dfa": DFA,
        "direct-kolen-pollack": DirectKolenPollack,
        "drtp": DRTP,
        "fa": FA,
        "frozen": Frozen,
        "kolen-pollack": KolenPollack,
        "readout-only": ReadoutOnly,
        "sign-symmetry": SignSymmetry,
    }
)


def get(name: str) -> AnyRule:
    """Return the rule of this name; ArgumentError, which lists the known ones, if there is none."""
    return RULES[one_of("rule", name, RULES)]
