"""Cross-seed overlap: one for equal runs, minus one for opposite ones, near zero for independent ones."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import feedalign as fa
from feedalign.errors import ArgumentError


def states(n: int) -> list[dict[str, torch.Tensor]]:
    return [dict(fa.networks.MLP([20, 30, 10], seed=seed).state_dict()) for seed in range(n)]


def test_mean_over_pairs_by_layer_and_in_total() -> None:
    runs = states(4)
    measured = fa.cross_seed_overlap(runs)
    flat = [torch.cat([run["0.weight"].flatten(), run["2.weight"].flatten()]).double() for run in runs]
    pairs = [float(a @ b / a.norm() / b.norm()) for a, b in itertools.combinations(flat, 2)]
    assert measured.pairs.tolist() == pytest.approx(pairs, abs=1e-12)
    assert measured.total == pytest.approx(sum(pairs) / 6, abs=1e-12)
    assert set(measured.layers) == {"0.weight", "2.weight"}


def test_equal_opposite_and_independent_runs() -> None:
    one, other = states(2)
    assert fa.cross_seed_overlap([one, {k: 3 * v for k, v in one.items()}]).total == pytest.approx(1.0, abs=1e-12)
    assert fa.cross_seed_overlap([one, {k: -v for k, v in one.items()}]).total == pytest.approx(-1.0, abs=1e-12)
    # Cosines of independent directions in 900 dimensions have standard deviation 1/30.
    assert abs(fa.cross_seed_overlap([one, other]).total) < 5 / math.sqrt(900)


def test_biases_and_feedback_are_not_compared() -> None:
    runs = [fa.DFA(fa.networks.MLP([20, 30, 10], seed=seed)).state_dict() for seed in range(3)]
    bare = fa.cross_seed_overlap(states(3))
    assert fa.cross_seed_overlap(runs).total == pytest.approx(bare.total, abs=1e-12)
    assert set(fa.cross_seed_overlap(runs).layers) == {"model.0.weight", "model.2.weight"}


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ArgumentError, match="got 1 state_dict, expected at least two"):
        fa.cross_seed_overlap(states(1))
    with pytest.raises(ArgumentError, match=r"run 1 does not hold the weights of run 0: 0.weight, 2.weight"):
        fa.cross_seed_overlap([*states(1), fa.networks.MLP([20, 31, 10]).state_dict()])
    with pytest.raises(ArgumentError, match="none at all"):
        fa.cross_seed_overlap([{}, {}])
