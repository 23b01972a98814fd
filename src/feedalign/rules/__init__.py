"""How the error reaches the layers: rules that wrap any `nn.Module` and leave the training loop as it is."""

from feedalign.rules.base import Rule, check_wrapped
from feedalign.rules.direct import DFA, Backprop, ReadoutOnly, direct_signal
from feedalign.rules.points import Block, observing, weight_matrices

__all__ = [
    "DFA",
    "Backprop",
    "Block",
    "ReadoutOnly",
    "Rule",
    "check_wrapped",
    "direct_signal",
    "observing",
    "weight_matrices",
]
