"""The direct family: the error at the output is sent straight to every hidden layer."""

from feedalign.rules.direct.conditioned import ConditionedDFA
from feedalign.rules.direct.dfa import DFA, DRTP
from feedalign.rules.direct.kolen_pollack import DirectKolenPollack
from feedalign.rules.direct.rule import DirectRule, check_direct
from feedalign.rules.direct.sender import direct_signal, signal

__all__ = [
    "DFA",
    "DRTP",
    "ConditionedDFA",
    "DirectKolenPollack",
    "DirectRule",
    "check_direct",
    "direct_signal",
    "signal",
]
