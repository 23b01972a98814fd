"""Feedback fitted to chains of convolutions: how alignable it is, what it reproduces, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from feedalign.errors import ArgumentError
from feedalign.theory import convolution
from feedalign.theory.convolution import Geometry

Array = NDArray[np.float64]

CHAIN = [
    Geometry((3, 12, 12), 4, stride=(2, 2), padding=(1, 1)),
    Geometry((4, 6, 6), 5, padding=(1, 1)),
]
OUTPUTS = 4


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def kernels(seed: int = 0) -> list[Array]:
    return [rng(seed).standard_normal(geometry.kernel_shape) for geometry in CHAIN]


def sizes() -> list[int]:
    return [math.prod(shape) for shape in (CHAIN[0].in_shape, *(geometry.out_shape for geometry in CHAIN))]


def alignabilities(feedback: list[Array]) -> list[float]:
    pairs = zip(itertools.pairwise(feedback), CHAIN, strict=True)
    return [convolution.best_match(above, below, geometry).alignment for (below, above), geometry in pairs]


def every_fit() -> dict[str, list[Array]]:
    return {
        "optimal": convolution.optimal_feedback(CHAIN, OUTPUTS, rng()),
        "mask": convolution.mask_feedback(CHAIN, OUTPUTS, rng()),
        "weights": convolution.weight_feedback(kernels(), CHAIN, OUTPUTS),
    }


def test_every_fit_has_the_shape_and_scale_of_feedback_and_is_reproducible() -> None:
    for name, found in every_fit().items():
        assert [matrix.shape for matrix in found] == [(size, OUTPUTS) for size in sizes()]
        for matrix, again in zip(found, every_fit()[name], strict=True):
            assert np.square(matrix).sum(0).mean() == pytest.approx(1)
            np.testing.assert_array_equal(matrix, again)


def test_the_optimum_is_above_every_other_structure() -> None:
    best = sum(alignabilities(convolution.optimal_feedback(CHAIN, OUTPUTS, rng())))
    shapes = [CHAIN[0].in_shape, *(geometry.out_shape for geometry in CHAIN)]
    others = {
        "random": [rng(i).standard_normal((size, OUTPUTS)) for i, size in enumerate(sizes())],
        "channelwise": [
            np.repeat(rng(i).standard_normal((c, OUTPUTS)), h * w, axis=0) for i, (c, h, w) in enumerate(shapes)
        ],
        **{name: found for name, found in every_fit().items() if name != "optimal"},
    }
    for found in others.values():
        assert best > sum(alignabilities(found)) + 0.05


def test_a_step_away_from_the_optimum_gains_nothing() -> None:
    """Within the tolerance of the search: 1e-4 a sweep."""
    optimum = convolution.optimal_feedback(CHAIN, OUTPUTS, rng())
    best = sum(alignabilities(optimum))
    for seed, size in itertools.product(range(5), (0.01, 0.1)):
        moved = [F + size / math.sqrt(len(F)) * rng(seed).standard_normal(F.shape) for F in optimum]
        assert sum(alignabilities(moved)) < best + 1e-3


def test_patterns_that_differ_between_channels_do_not_align_better() -> None:
    """Alternating as the search does, but with every channel free, from random starts: never above one pattern."""
    geometry = Geometry((2, 6, 6), 3, padding=(1, 1))
    F_in, F_out = convolution.optimal_feedback([geometry], OUTPUTS, rng())
    best = convolution.best_match(F_out, F_in, geometry).alignment
    for seed in range(5):
        left, right = (rng(seed + i).standard_normal((size, OUTPUTS)) for i, size in enumerate((108, 72)))
        for _ in range(200):
            match = convolution.best_match(left, right, geometry)
            # The best feedback for a kernel: its leading singular vectors.
            u, _, v = np.linalg.svd(convolution.unrolled(match.kernel, geometry).toarray())
            left, right = u[:, :OUTPUTS], v[:OUTPUTS].T
        assert convolution.best_match(left, right, geometry).alignment < best + 1e-3


def test_all_channels_of_the_optimum_share_one_pattern() -> None:
    for matrix, shape in zip(
        convolution.optimal_feedback(CHAIN, OUTPUTS, rng()),
        [CHAIN[0].in_shape, *(geometry.out_shape for geometry in CHAIN)],
        strict=True,
    ):
        channels = matrix.reshape(shape[0], -1)
        assert np.linalg.matrix_rank(channels) == 1


def test_with_as_many_outputs_as_positions_nothing_keeps_weights_from_aligning() -> None:
    geometry = Geometry((2, 2, 2), 3, padding=(1, 1))
    F_in, F_out = convolution.optimal_feedback([geometry], 10, rng())
    assert F_out.shape == (12, 10)
    assert convolution.best_match(F_out, F_in, geometry).alignment == pytest.approx(1, abs=1e-6)


def test_products_of_fitted_feedback_approximate_what_they_were_fitted_to() -> None:
    weights = convolution.weight_feedback(kernels(), CHAIN, OUTPUTS)
    W = convolution.unrolled(kernels()[0], CHAIN[0]).toarray()
    product = weights[1] @ weights[0].T
    singular = np.linalg.svd(W, compute_uv=False)
    cosine = np.vdot(W, product) / np.linalg.norm(W) / np.linalg.norm(product)
    # That of the best matrix of this rank.
    assert cosine == pytest.approx(np.linalg.norm(singular[:OUTPUTS]) / np.linalg.norm(singular), rel=1e-6)

    mask = convolution.mask_feedback(CHAIN, OUTPUTS, rng())
    for (below, above), geometry in zip(itertools.pairwise(mask), CHAIN, strict=True):
        assert min(below.min(), above.min()) >= 0
        M = abs(convolution.unrolled(np.ones(geometry.kernel_shape), geometry)).toarray()
        product = above @ below.T
        constant = M.mean() ** 0.5  # cosine of the mask with a matrix of ones
        assert np.vdot(M, product) / np.linalg.norm(M) / np.linalg.norm(product) > constant + 0.05


CALLS: list[Any] = [
    lambda chain: convolution.optimal_feedback(chain, OUTPUTS, rng()),
    lambda chain: convolution.mask_feedback(chain, OUTPUTS, rng()),
    lambda chain: convolution.weight_feedback([np.ones(g.kernel_shape) for g in chain], chain, OUTPUTS),
]


@pytest.mark.parametrize("call", CALLS, ids=["optimal", "mask", "weights"])
def test_layers_that_are_no_chain_are_refused(call: Any) -> None:
    with pytest.raises(ArgumentError, match="no convolution to fit feedback to"):
        call([])
    with pytest.raises(ArgumentError, match=r"a layer gives \(5, 6, 6\), but the next takes \(3, 12, 12\)"):
        call(CHAIN[::-1])


def test_weights_of_lower_rank_than_there_are_outputs_are_refused() -> None:
    with pytest.raises(ArgumentError, match="200 outputs are not fewer than the features"):
        convolution.weight_feedback(kernels(), CHAIN, 200)
