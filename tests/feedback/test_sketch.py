"""R of `Sketched`: sums by columns are the product with R, and the moments that make R a sketch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign import feedback
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback import sketch

RANKS = [(1, 1), (7, 1), (7, 3), (7, 7), (12, 4), (50, 49)]  # outputs, rank


def place(outputs: int, seed: int = 0) -> feedback.Place:
    return feedback.Place("1", 4, outputs, (4,), 4, seed)


def dense(outputs: int, rank: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    signs = sketch.draw_signs(place(outputs, seed))
    return signs, sketch.dense_sketch(signs, rank, torch.empty(0, dtype=torch.float64))


@pytest.mark.parametrize(("outputs", "rank"), RANKS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 5), (0,), (2, 0)])
def test_the_sums_are_the_product_with_r(outputs: int, rank: int, batch: tuple[int, ...]) -> None:
    signs, R = dense(outputs, rank)
    error = torch.randn(*batch, outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(sketch.sketched(error, signs, rank), error @ R)


def test_a_large_error_is_added_up_in_pieces_to_the_same_bits() -> None:
    outputs, rank = 3001, 64
    signs, _ = dense(outputs, rank)
    error = torch.randn(200, outputs, generator=torch.Generator().manual_seed(1))
    assert error.numel() > 2 * sketch.PIECE
    together = sketch.sketched(error, signs, rank)
    assert torch.equal(together, torch.cat([sketch.sketched(row[None], signs, rank) for row in error]))


def test_gradients_pass_through() -> None:
    signs, _ = dense(7, 3)
    error = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: sketch.sketched(e, signs, 3), error)


@pytest.mark.parametrize(("outputs", "rank"), RANKS)
def test_rows_have_length_one_and_columns_are_at_right_angles(outputs: int, rank: int) -> None:
    _, R = dense(outputs, rank)
    assert torch.equal(R.square().sum(1), torch.ones(outputs, dtype=R.dtype))
    assert torch.equal(R.T @ R, torch.diag(sketch.outputs_per_column(outputs, rank, R).double()))


def test_over_the_draws_r_times_its_transpose_is_the_identity_in_the_mean() -> None:
    """The entries are ±1 with equal probability, so the mean of n draws has a standard error of 1/√n."""
    draws = torch.stack([R @ R.T for _, R in (dense(7, 2, seed) for seed in range(400))])
    torch.testing.assert_close(draws.mean(0), torch.eye(7, dtype=torch.float64), rtol=0, atol=5 / math.sqrt(400))
    same = (torch.arange(7)[:, None] - torch.arange(7)) % 2 == 0
    assert torch.equal(draws.square()[0], same.double())  # outputs of one column answer for each other, others never


def test_the_columns_of_f_are_those_of_b_with_a_sign() -> None:
    net = fa.DFA(fa.networks.MLP([4, 40, 30]), feedback=feedback.Sketched(7))
    F, B, R = net.feedback_matrices["1"], net.feedback["1"], net.feedback.sketch
    assert R is not None
    for c in range(30):
        torch.testing.assert_close(F[:, c], R[c, c % 7] * B[:, c % 7])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_cast_leaves_the_signs(dtype: Any) -> None:
    net = fa.DFA(fa.networks.MLP([4, 40, 30]), feedback=feedback.Sketched(7))
    before = net.feedback.sketch
    assert before is not None
    after = net.to(dtype).feedback.sketch
    assert after is not None
    assert after.dtype == dtype
    assert torch.equal(after.float(), before)
    functional.cross_entropy(net(torch.ones(2, 4, dtype=dtype)), torch.arange(2)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_a_state_of_a_model_with_other_outputs_is_told() -> None:
    state = fa.DFA(fa.networks.MLP([4, 6, 30]), feedback=feedback.Sketched(3)).state_dict()
    other = fa.DFA(fa.networks.MLP([4, 6, 20]), ["1"], feedback.Sketched(3))
    kept = {name: value for name, value in state.items() if "feedback" in name}
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(kept, strict=False)


def test_a_state_loaded_before_the_outputs_are_known_is_told_too() -> None:
    state = fa.DFA(fa.networks.MLP([4, 6, 30]), feedback=feedback.Sketched(3)).state_dict()
    model = torch.nn.Sequential(torch.nn.Conv1d(1, 6, 4), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(6, 20))
    late = fa.DFA(model, ["1"], feedback.Sketched(3))
    late.load_state_dict({name: value for name, value in state.items() if "feedback" in name}, strict=False)
    with pytest.raises(FeedbackShapeError, match=r"the sketch of the outputs has shape \(30,\), expected \(20,\)"):
        late(torch.ones(2, 1, 4))


def test_the_sketch_keeps_the_length_of_a_column_and_needs_enough_outputs() -> None:
    net = fa.DFA(fa.networks.MLP([4, 400, 300]), feedback=feedback.Sketched(50))
    F = net.feedback_matrices["1"]
    # 400 · 50 independent numbers of variance 1/400: a relative standard deviation of √(2/20 000).
    assert float(F.square().sum()) / 300 == pytest.approx(1, abs=5 * math.sqrt(2 / 20_000))
    assert int(torch.linalg.matrix_rank(F)) == 50
    with pytest.raises(FeedbackShapeError, match="needs a model of at least 64 outputs, and this model has 3"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=feedback.Sketched())
    with pytest.raises(ArgumentError, match="makes a matrix for the model's own outputs"):
        feedback.Sketched(2, feedback.Aligned())
