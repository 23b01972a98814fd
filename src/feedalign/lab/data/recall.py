"""Associative recall: look a key up among pairs that were just shown, a task for attention."""

from __future__ import annotations

import torch
from torch import Tensor

from feedalign.checks import whole_number
from feedalign.errors import ArgumentError

NO_TARGET = -100
"""The target of a token that is not asked for anything: torch's cross_entropy leaves it out."""


def associative_recall(
    batch: int, generator: torch.Generator, *, pairs: int = 4, queries: int = 4, keys: int = 16, values: int = 16
) -> tuple[Tensor, Tensor]:
    """Return sequences of pairs and queries, and what each query must be answered with.

    A sequence shows `pairs` different keys, each followed by a value: k₁ v₁ k₂ v₂ .... Then come `queries` of these
    keys, drawn with replacement. The answer to a query is the value that followed the key in this sequence. Keys and
    values are drawn anew for every sequence, so that nothing can be learned by heart: an answer that is independent of
    the pairs is right with probability 1 / values, and the guess of some value that the sequence has shown with
    probability of about 1 / pairs.

    Args:
        batch: number of sequences.
        generator: where random numbers come from; the global one is not touched.
        pairs: pairs in a sequence, no more than there are keys.
        queries: queries in a sequence.
        keys: number of different keys.
        values: number of different values, C.

    Returns:
        Tokens, int64 [batch, 2 · pairs + queries]: values are 0 to values − 1, keys are values to values + keys − 1, so
        the vocabulary is keys + values. Targets, int64 of the same shape: the value at each query, `NO_TARGET` at every
        other token.

    Raises:
        ArgumentError: a number is no whole number of at least one, or there are more pairs than keys.
    """
    sizes = {"batch": batch, "pairs": pairs, "queries": queries, "keys": keys, "values": values}
    batch, pairs, queries, keys, values = (whole_number(name, size, 1) for name, size in sizes.items())
    if pairs > keys:
        raise ArgumentError(f"got pairs={pairs} and keys={keys}; each pair has a key of its own, so give more keys")
    shown = torch.rand(batch, keys, generator=generator).argsort(1)[:, :pairs]  # [batch, pairs], all different
    belonging = torch.randint(values, (batch, pairs), generator=generator)
    asked = torch.randint(pairs, (batch, queries), generator=generator)
    pair_tokens = torch.stack([shown + values, belonging], 2).flatten(1)
    tokens = torch.cat([pair_tokens, shown.gather(1, asked) + values], 1)
    targets = torch.cat([torch.full_like(pair_tokens, NO_TARGET), belonging.gather(1, asked)], 1)
    return tokens, targets
