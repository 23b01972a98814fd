"""Associative recall: the answer is in the sequence, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedalign.errors import ArgumentError
from feedalign.lab.data import NO_TARGET, associative_recall


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    batch=st.integers(1, 6), pairs=st.integers(1, 5), queries=st.integers(1, 5), extra=st.integers(0, 5),
    values=st.integers(1, 9), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_answer_is_the_value_that_followed_the_key(
    batch: int, pairs: int, queries: int, extra: int, values: int, seed: int
) -> None:
    keys = pairs + extra
    tokens, targets = associative_recall(batch, seeded(seed), pairs=pairs, queries=queries, keys=keys, values=values)
    assert tokens.shape == targets.shape == (batch, 2 * pairs + queries)
    assert bool((targets[:, : 2 * pairs] == NO_TARGET).all())
    for sequence, answers in zip(tokens.tolist(), targets[:, 2 * pairs :].tolist(), strict=True):
        shown = dict(zip(sequence[: 2 * pairs : 2], sequence[1 : 2 * pairs : 2], strict=True))
        assert len(shown) == pairs
        assert all(values <= key < values + keys for key in shown)
        assert all(0 <= value < values for value in shown.values())
        assert [shown[key] for key in sequence[2 * pairs :]] == answers


def test_what_belongs_to_a_key_is_drawn_anew_in_every_sequence() -> None:
    """Over many sequences each key has each value equally often, and each is asked for equally often."""
    n = 40_000
    tokens, _ = associative_recall(n, seeded(), pairs=1, queries=1, keys=4, values=4)
    joint = torch.bincount((tokens[:, 0] - 4) * 4 + tokens[:, 1], minlength=16).double()
    p = 1 / 16
    # 16 counts within 5 standard errors: fails by chance once in 100 000 seeds, and the seed is fixed.
    assert (joint - n * p).abs().max() < 5 * (n * p * (1 - p)) ** 0.5


def test_the_generator_decides_and_the_global_one_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (associative_recall(5, seeded(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": 17}, "got pairs=17 and keys=16; each pair has a key of its own, so give more keys"),
        ({"queries": 0}, "queries must be a whole number of at least 1, got 0"),
        ({"values": 1.5}, "values must be a whole number of at least 1, got 1.5"),
    ],
)
def test_odd_arguments_say_what_was_expected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        associative_recall(3, seeded(), **arguments)
