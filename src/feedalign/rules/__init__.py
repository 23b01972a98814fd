"""How the error reaches the layers: rules that wrap any `nn.Module` and leave the training loop as it is."""

from feedalign.rules.controls import Backprop, Frozen, ReadoutOnly
from feedalign.rules.direct import (
    DFA,
    DRTP,
    ConditionedDFA,
    DirectKolenPollack,
    DirectRule,
    check_direct,
    direct_signal,
    signal,
)
from feedalign.rules.distributed import Processes, check_whole, reshard
from feedalign.rules.registry import RULES, get
from feedalign.rules.sequential import FA, KolenPollack, SequentialRule, SignSymmetry, register_linear_layer
from feedalign.rules.wrapped import Wrapped, check_bare, check_wrapped

__all__ = [
    "DFA",
    "DRTP",
    "FA",
    "RULES",
    "Backprop",
    "ConditionedDFA",
    "DirectKolenPollack",
    "DirectRule",
    "Frozen",
    "KolenPollack",
    "Processes",
    "ReadoutOnly",
    "SequentialRule",
    "SignSymmetry",
    "Wrapped",
    "check_bare",
    "check_direct",
    "check_whole",
    "check_wrapped",
    "direct_signal",
    "get",
    "register_linear_layer",
    "reshard",
    "signal",
]
