"""Feedback alignment."""

from __future__ import annotations

from feedalign.rules.sequential.rule import SequentialRule


class FA(SequentialRule):
    r"""Feedback alignment: B_l is random and fixed, in place of the transposed weight of every layer but the first.

    .. math:: δ_{l-1} = (B_l δ_l) ⊙ g'(a_{l-1})

    `SequentialRule` describes the arguments, and what happens to convolutions and to copies of a layer.

    Source: Lillicrap, Cownden, Tweed and Akerman (2016).
    """
