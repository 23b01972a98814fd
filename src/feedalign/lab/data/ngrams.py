r"""What counting alone predicts of a text: the control for every model of characters.

An n-gram model predicts a character from the n − 1 characters before it. A context that was seen rarely borrows from
the context that is one character shorter (Witten and Bell, 1991):

.. math:: p_n(b \mid a) = \frac{N(ab) + T(a)\, p_{n-1}(b \mid a')}{N(a) + T(a)}, \qquad p_0 = 1/V,

with N the counts in the training text, T(a) the number of different characters that follow a, a' the context a without
its first character, and V the number of characters in the alphabet. No constant is to be chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from feedalign.checks import whole_number
from feedalign.lab.data.text import TextData


@dataclass(frozen=True)
class NGram:
    """How well an n-gram model predicts, in bits per character.

    Attributes:
        order: n; 1 knows the frequencies of characters, 2 the pairs.
        entropy_bits: of the training text: the mean of −log₂ N(ab)/N(a), which no unseen text attains.
        validation_bits: cross-entropy of the held-out text under the model of the training text.
    """

    order: int
    entropy_bits: float
    validation_bits: float


def ngram(data: TextData, order: int) -> NGram:
    """Return how well the n-gram model of the training blocks predicts them, and the validation blocks.

    N-grams do not cross from one block to the next.

    Args:
        data: the text.
        order: n, from 1 to 3: the table has V^n entries.

    Raises:
        ArgumentError: the order is no whole number from 1 to 3.
    """
    order = whole_number("order", order, 1, 3)
    letters = len(data.alphabet)
    model = torch.full((letters,), 1 / letters, dtype=torch.float64)
    for n in range(1, order + 1):
        counts = _counts(data.train, n, letters)
        kinds = (counts > 0).sum(-1, keepdim=True)
        seen = counts.sum(-1, keepdim=True)
        # A context that was never seen has N = T = 0, and predicts what the shorter context predicts.
        model = torch.where(seen > 0, (counts + kinds * model) / (seen + kinds).clamp(min=1), model)
    counts = _counts(data.train, order, letters)
    shares = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return NGram(order, _bits(counts, shares), _bits(_counts(data.validation, order, letters), model))


def _counts(blocks: Tensor, n: int, letters: int) -> Tensor:
    """Return how often each n-gram stands in the blocks, float64 [V, ..., V]."""
    grams = blocks.unfold(1, n, 1).flatten(0, 1)  # [n-grams, n]
    flat = (grams * letters ** torch.arange(n - 1, -1, -1)).sum(1)
    return torch.bincount(flat, minlength=letters**n).double().reshape((letters,) * n)


def _bits(counts: Tensor, probabilities: Tensor) -> float:
    """Return the mean of −log₂ p over n-grams that were counted."""
    return float(-torch.xlogy(counts, probabilities).sum() / counts.sum() / math.log(2))
