"""Alignability against matrices written out, and the kernel that reaches it."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases.geometries import GEOMETRIES, Array, feedback
from torch.nn import functional

from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.theory import convolution
from feedalign.theory.convolution import Geometry


def written_out(kernel: Array, geometry: Geometry) -> Array:
    """The unrolled matrix by running PyTorch's convolution on every pixel, region by region."""
    inputs = torch.eye(math.prod(geometry.in_shape), dtype=torch.float64).reshape(-1, *geometry.in_shape)
    output = torch.zeros(len(inputs), *geometry.out_shape, dtype=torch.float64)
    _, height, width = geometry.out_shape
    tile = height // geometry.regions[0], width // geometry.regions[1]
    for region, one in enumerate(kernel):
        if not one.any():
            continue
        whole = functional.conv2d(
            inputs, torch.as_tensor(one), None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
        )
        row, column = divmod(region, geometry.regions[1])
        part = (..., slice(row * tile[0], (row + 1) * tile[0]), slice(column * tile[1], (column + 1) * tile[1]))
        output[part] = whole[part]
    return output.flatten(1).numpy().T


def every_tap(geometry: Geometry) -> list[Array]:
    """The normalised indicators B_τ of all taps that connect anything, written out."""
    taps = []
    for index in np.ndindex(*geometry.kernel_shape):
        kernel = np.zeros(geometry.kernel_shape)
        kernel[index] = 1
        matrix = written_out(kernel, geometry)
        if matrix.any():
            taps.append(matrix / np.linalg.norm(matrix))
    return taps


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_it_is_the_top_singular_value_of_the_map_written_out(geometry: Geometry) -> None:
    F_out, F_in = feedback(geometry)
    taps = every_tap(geometry)
    assert len(taps) == geometry.taps
    U, V = (np.linalg.qr(F)[0] for F in (F_out, F_in))
    expected = np.linalg.svd(np.array([(U.T @ tap @ V).ravel() for tap in taps]), compute_uv=False)[0]
    found = convolution.alignability(
        F_out,
        F_in,
        in_shape=geometry.in_shape,
        out_channels=geometry.out_channels,
        kernel_size=geometry.kernel_size,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        regions=geometry.regions,
    )
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_the_unrolled_matrix_is_what_the_convolution_does(geometry: Geometry) -> None:
    kernel = np.random.default_rng(1).standard_normal(geometry.kernel_shape)
    sparse = convolution.unrolled(kernel, geometry)
    np.testing.assert_allclose(sparse.toarray(), written_out(kernel, geometry), atol=1e-13)
    positions = math.prod(geometry.out_shape[1:]) * math.prod(geometry.in_shape[1:])
    of_positions = abs(convolution.unrolled(np.ones(geometry.kernel_shape), geometry)).nnz
    per_pair = geometry.kernel_shape[1] * geometry.kernel_shape[2]
    assert geometry.connected == pytest.approx(of_positions / per_pair / positions, abs=1e-15)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_the_best_kernel_reaches_it(geometry: Geometry) -> None:
    F_out, F_in = feedback(geometry)
    match = convolution.best_match(F_out, F_in, geometry)
    W, target = written_out(match.kernel, geometry), match.target[0] @ match.target[1].T
    assert np.linalg.norm(target) == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(W) == pytest.approx(match.alignment, abs=1e-12)
    assert np.vdot(W, target) / np.linalg.norm(W) == pytest.approx(match.alignment, abs=1e-12)
    # What it aligns with is F_l A F_{l−1}ᵀ: nothing of it lies outside of the columns of the feedback.
    for F, side in ((F_out, target), (F_in, target.T)):
        np.testing.assert_allclose(F @ np.linalg.pinv(F) @ side, side, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from(GEOMETRIES))
@settings(max_examples=40, deadline=None)
def test_no_kernel_and_no_alignment_matrix_do_better(seed: int, geometry: Geometry) -> None:
    F_out, F_in = feedback(geometry, seed=seed)
    rng = np.random.default_rng(seed)
    best = convolution.best_match(F_out, F_in, geometry)
    A = rng.standard_normal((3, 3))
    for kernel in (
        rng.standard_normal(geometry.kernel_shape),
        convolution.nearest_kernel(F_out @ A, F_in, geometry),
        best.kernel + 0.1 * best.alignment * rng.standard_normal(geometry.kernel_shape),
    ):
        dot, ww, tt = convolution.inner_products(kernel, F_out @ A, F_in, geometry)
        assert abs(dot) / math.sqrt(ww * tt) <= best.alignment + 1e-12


@given(st.integers(0, 10_000), st.sampled_from(GEOMETRIES))
@settings(max_examples=20, deadline=None)
def test_only_the_columns_spaces_count(seed: int, geometry: Geometry) -> None:
    F_out, F_in = feedback(geometry, seed=seed)
    rng = np.random.default_rng(seed)
    mixed = [np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.2, 5, 3) for _ in range(2)]
    one, other = (
        convolution.best_match(F, G, geometry).alignment
        for F, G in ((F_out, F_in), (7 * F_out @ mixed[0], 1e-8 * F_in @ mixed[1]))
    )
    assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_inner_products_and_nearest_kernel_are_those_of_the_matrices(geometry: Geometry) -> None:
    F_out, F_in = feedback(geometry)
    kernel = np.random.default_rng(2).standard_normal(geometry.kernel_shape)
    W, T = written_out(kernel, geometry), F_out @ F_in.T
    expected = [np.vdot(W, T), np.vdot(W, W), np.vdot(T, T)]
    np.testing.assert_allclose(convolution.inner_products(kernel, F_out, F_in, geometry), expected, rtol=1e-11)
    nearest = written_out(convolution.nearest_kernel(F_out, F_in, geometry), geometry)
    projected = sum(np.vdot(tap, T) * tap for tap in every_tap(geometry))
    np.testing.assert_allclose(nearest, projected, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_channel_products_are_those_of_feedback_that_is_the_same_at_all_positions(geometry: Geometry) -> None:
    rng = np.random.default_rng(3)
    rows = [rng.standard_normal((shape[0], 4)) for shape in (geometry.out_shape, geometry.in_shape)]
    positions = (math.prod(shape[1:]) for shape in (geometry.out_shape, geometry.in_shape))
    F_out, F_in = (side.repeat(number, 0) for side, number in zip(rows, positions, strict=True))
    kernel = rng.standard_normal(geometry.kernel_shape)
    expected = convolution.inner_products(kernel, F_out, F_in, geometry)
    found = convolution.channel_products(kernel, rows[0] @ rows[1].T, geometry)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    with pytest.raises(FeedbackShapeError, match="channels out by channels in"):
        convolution.channel_products(kernel, np.ones((2, 2, 1)), geometry)


def test_a_rank_that_would_fill_the_memory_is_refused_before_it_does() -> None:
    geometry = Geometry((8, 10, 10), 8, padding=(1, 1))
    with pytest.raises(ArgumentError, match=r"alignability of feedback of rank 700 and 700.* need .* GB"):
        convolution.best_match(*feedback(geometry, 700), geometry)


def test_a_dense_layer_aligns_perfectly_as_one_position_or_as_one_kernel_for_each() -> None:
    for geometry in (
        Geometry((6, 1, 1), 5, kernel_size=(1, 1)),
        Geometry((2, 3, 3), 4, kernel_size=(5, 5), padding=(2, 2), regions=(3, 3)),
    ):
        assert geometry.connected == 1
        assert convolution.best_match(*feedback(geometry), geometry).alignment == pytest.approx(1, abs=1e-12)
        assert convolution.random_estimate(geometry, 3) == 1
        assert convolution.channelwise_estimate(geometry) == 1


def test_less_sharing_allows_more_alignment() -> None:
    found = []
    for regions in (1, 2, 4, 8):
        geometry = Geometry((4, 8, 8), 6, padding=(1, 1), regions=(regions, regions))
        found.append(convolution.best_match(*feedback(geometry), geometry).alignment)
    assert found == sorted(found)
    assert found[0] < 0.15 < 0.3 < found[-1] < 1


def test_a_large_layer_needs_no_matrix_of_its_size() -> None:
    geometry = Geometry((64, 32, 32), 64, padding=(1, 1))
    F_out, F_in = feedback(geometry, 10)
    tracemalloc.start()
    convolution.best_match(F_out, F_in, geometry)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


def test_inner_products_load_no_scipy() -> None:
    """So the weight alignment of a convolutional net needs torch and numpy alone."""
    code = (
        "import sys; from feedalign.theory import convolution; convolution.inner_products;"
        "print(sorted({'scipy', 'numba', 'torch', 'sklearn'} & set(sys.modules)));"
        "convolution.alignability; print('scipy' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\nTrue\n"
