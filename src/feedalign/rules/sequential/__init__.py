"""The sequential family: the error goes down layer by layer, through other weights than the layers' own."""

from feedalign.rules.sequential.fa import FA
from feedalign.rules.sequential.known_layers import register_linear_layer
from feedalign.rules.sequential.kolen_pollack import KolenPollack
from feedalign.rules.sequential.rule import SequentialRule
from feedalign.rules.sequential.sign_symmetry import SignSymmetry

__all__ = ["FA", "KolenPollack", "SequentialRule", "SignSymmetry", "register_linear_layer"]
