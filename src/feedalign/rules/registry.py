"""The rules by name, for command lines and sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from feedalign.errors import ArgumentError
from feedalign.rules.base import Rule
from feedalign.rules.conditioned import ConditionedDFA
from feedalign.rules.controls import Backprop, Frozen, ReadoutOnly
from feedalign.rules.dfa import DFA, DRTP
from feedalign.rules.kolen_pollack import DirectKolenPollack, KolenPollack
from feedalign.rules.sequential import FA
from feedalign.rules.sign_symmetry import SignSymmetry

RULES: Mapping[str, type[Rule]] = MappingProxyType(
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


def get(name: str) -> type[Rule]:
    """Return the rule of this name; ArgumentError, which lists the known ones, if there is none."""
    if name not in RULES:
        raise ArgumentError(f"rule {name!r} is unknown; expected one of {', '.join(RULES)}")
    return RULES[name]
