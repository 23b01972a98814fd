"""How the error reaches the layers: rules that wrap any `nn.Module` and leave the training loop as it is."""

from feedalign.rules.base import Rule, check_wrapped
from feedalign.rules.conditioned import ConditionedDFA
from feedalign.rules.controls import Backprop, Frozen, ReadoutOnly
from feedalign.rules.dfa import DFA, DRTP
from feedalign.rules.direct import DirectRule
from feedalign.rules.hooks import observing
from feedalign.rules.kolen_pollack import DirectKolenPollack, KolenPollack
from feedalign.rules.outputs import ErrorTap, exchange, mapped, tensors_in
from feedalign.rules.points import (
    Block,
    activation_of,
    convolution_between,
    weight_matrices,
)
from feedalign.rules.problems import Problem
from feedalign.rules.proof import RuleCheck, check_rule
from feedalign.rules.registry import RULES, get
from feedalign.rules.sequential import FA, SequentialRule
from feedalign.rules.sign_symmetry import SignSymmetry
from feedalign.rules.signal import direct_signal
from feedalign.rules.validation import Validation, validate

__all__ = [
    "DFA",
    "DRTP",
    "FA",
    "RULES",
    "Backprop",
    "Block",
    "ConditionedDFA",
    "DirectKolenPollack",
    "DirectRule",
    "ErrorTap",
    "Frozen",
    "KolenPollack",
    "Problem",
    "ReadoutOnly",
    "Rule",
    "RuleCheck",
    "SequentialRule",
    "SignSymmetry",
    "Validation",
    "activation_of",
    "check_rule",
    "check_wrapped",
    "convolution_between",
    "direct_signal",
    "exchange",
    "get",
    "mapped",
    "observing",
    "tensors_in",
    "validate",
    "weight_matrices",
]
