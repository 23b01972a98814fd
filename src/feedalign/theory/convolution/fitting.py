r"""Feedback that fits a chain of convolutions: matrices for the points below, between and above them.

A layer aligns where W_l ≈ F_l A F_{l−1}ᵀ. So every matrix between two layers takes part in two such products.

Indices as in `matching`. Every matrix is scaled so that the root mean square of its columns' lengths is one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lstsq, polar
from scipy.sparse.linalg import svds

from feedalign.checks import Array, finite_array, instance_of, random_generator, sequence, whole_number
from feedalign.errors import ArgumentError
from feedalign.geometry import Geometry
from feedalign.theory.convolution.matching import best_match
from feedalign.theory.convolution.unrolling import unrolled


def optimal_feedback(geometries: Sequence[Geometry], outputs: int, rng: np.random.Generator) -> list[Array]:
    r"""Return the feedback that maximises the sum of the alignabilities of a chain of convolutions.

    .. math:: F_l = u_l ⊗ Φ_l, \quad u_l \in \mathbb{R}^{channels}, \quad Φ_l^T Φ_l = I

    All channels share one spatial pattern for each output of the network: a second pattern would only take weight from
    the first, which aligns best. The spatial modes Φ_l begin as the lowest cosine modes. Then two steps alternate: the
    best kernels and alignment matrices for fixed modes (`best_match`), and the best Φ_l for all else fixed (an
    orthogonal Procrustes problem). The sum never falls. The entries of u_l are random signs.

    This feedback shows how large alignability can be, and that alignability is not all that counts: with one pattern
    for all channels, all channels of a layer learn the same.

    Args:
        geometries: of the layers from the bottom; each takes the output of the one before.
        outputs: C.
        rng: of the signs.

    Returns:
        One matrix more than there are layers, [features, C].

    Raises:
        ArgumentError: no layer, or layers that do not fit on one another.
    """
    shapes = _shapes(geometries)
    outputs = whole_number("outputs", outputs, 1)
    random_generator("rng", rng)
    links = [replace(g, in_shape=(1, *g.in_shape[1:]), out_channels=1, groups=1) for g in geometries]
    modes = [_cosine_modes(height, width, outputs) for _, height, width in shapes]
    before, reached = -1.0, 0.0
    while reached > before + 1e-4:  # alignabilities are quoted to two digits
        for point in range(len(modes)):
            pull = np.zeros_like(modes[point])
            for link in range(max(0, point - 1), min(point + 1, len(links))):
                match = best_match(modes[link + 1], modes[link], links[link])
                kernel = unrolled(match.kernel / match.alignment, links[link])
                left, right = match.target
                # The target is modes[link + 1] A modes[link]ᵀ. One of its two modes is chosen anew, the A is kept.
                A = np.linalg.pinv(modes[link + 1]) @ left @ right.T @ np.linalg.pinv(modes[link]).T
                pull += kernel @ modes[link] @ A.T if link < point else kernel.T @ modes[link + 1] @ A
            modes[point], _ = polar(pull)
        before = reached
        reached = sum(best_match(modes[l + 1], modes[l], link).alignment for l, link in enumerate(links))
    matrices = []
    for (channels, _, _), mode in zip(shapes, modes, strict=True):
        signs = rng.choice([-1.0, 1.0], channels)
        patterns = mode[:, np.arange(outputs) % mode.shape[1]]  # modes that are fewer than outputs are used in turn
        matrices.append(_scaled(np.kron(signs[:, None], patterns)))
    return matrices


def mask_feedback(geometries: Sequence[Geometry], outputs: int, rng: np.random.Generator) -> list[Array]:
    """Return non-negative feedback whose products resemble the masks, the patterns of what a layer connects.

    Each output of the network gets a blob of neighbouring positions. The lowest layer's mask is factorised,
    mask ≈ F_1 F_0ᵀ (non-negative matrix factorisation). Each higher matrix is then the non-negative matrix that
    describes its own layer's mask best. The mask is the same for all channels, so the feedback is too.

    Args:
        geometries: of the layers from the bottom; each takes the output of the one before.
        outputs: C.
        rng: of the factorisation's start.

    Returns:
        One matrix more than there are layers, [features, C].

    Raises:
        ArgumentError: no layer, or layers that do not fit on one another.
    Source: tried by Refinetti et al. (2021).
    """
    from sklearn.decomposition import non_negative_factorization  # takes a second to import

    shapes = _shapes(geometries)
    outputs = whole_number("outputs", outputs, 1)
    random_generator("rng", rng)
    masks = []
    for g in geometries:
        one = replace(g, in_shape=(1, *g.in_shape[1:]), out_channels=1, groups=1, regions=(1, 1))
        masks.append(unrolled(np.ones(one.kernel_shape), one).toarray())
    above, below, _ = non_negative_factorization(
        masks[0],
        n_components=outputs,
        init="nndsvda" if outputs <= min(masks[0].shape) else "random",
        random_state=int(rng.integers(2**31)),
        max_iter=1000,
        tol=1e-3,
    )
    factors = [below.T, above]
    for mask in masks[1:]:
        above, _, _ = non_negative_factorization(
            mask, H=factors[-1].T, update_H=False, n_components=outputs, max_iter=1000, tol=1e-3
        )
        factors.append(above)
    return [
        _scaled(np.kron(np.ones((channels, 1)), factor))
        for (channels, _, _), factor in zip(shapes, factors, strict=True)
    ]


def weight_feedback(kernels: Sequence[ArrayLike], geometries: Sequence[Geometry], outputs: int) -> list[Array]:
    """Return feedback whose products approximate given weights.

    The lowest layer's unrolled weights are factorised, W_1 ≈ F_1 F_0ᵀ, by a truncated singular value decomposition:
    the best approximation of rank C. Each higher matrix is then the least-squares solution of W_l ≈ F_l F_{l−1}ᵀ. This
    reads the weights once, which hardware without weight transport cannot do.

    Args:
        kernels: of the layers, [o, i, height, width] or [regions, o, i, height, width].
        geometries: of the layers from the bottom; each takes the output of the one before.
        outputs: C.

    Returns:
        One matrix more than there are layers, [features, C].

    Raises:
        ArgumentError: no layer, layers that do not fit on one another, not one kernel for each layer, a kernel that is
            all zero or not finite, or not fewer outputs than features.
        FeedbackShapeError: a kernel has another number of weights than its layer.
    Source: tried by Refinetti et al. (2021).
    """
    shapes = _shapes(geometries)
    outputs = whole_number("outputs", outputs, 1)
    given = sequence("kernels", kernels, "kernels, one for each layer", length=len(geometries))
    if outputs >= min(map(math.prod, shapes[:2])):
        raise ArgumentError(f"{outputs} outputs are not fewer than the features of the layers {shapes[:2]}")
    weights = []
    for i, (kernel, geometry) in enumerate(zip(given, geometries, strict=True)):
        finite = finite_array(f"kernels[{i}]", kernel)
        if not finite.any():
            raise ArgumentError(f"kernels[{i}] is all zero, so no feedback can be fitted to it")
        weights.append(unrolled(finite, geometry))
    left, values, right = svds(weights[0], outputs, random_state=np.random.default_rng(0))
    factors = [right.T * np.sqrt(values), left * np.sqrt(values)]
    for W in weights[1:]:
        F = factors[-1]
        factors.append(lstsq(F.T @ F, (W @ F).T)[0].T)
    return [_scaled(factor) for factor in factors]


def _shapes(geometries: Sequence[Geometry]) -> list[tuple[int, int, int]]:
    """Return the shapes below, between and above the layers; ArgumentError unless the layers form a chain."""
    for i, geometry in enumerate(sequence("geometries", geometries, "geometries, one for each layer")):
        instance_of(f"geometries[{i}]", geometry, Geometry)
    if not len(geometries):
        raise ArgumentError("no convolution to fit feedback to; give at least one geometry")
    for lower, upper in itertools.pairwise(geometries):
        if lower.out_shape != upper.in_shape:
            raise ArgumentError(f"a layer gives {lower.out_shape}, but the next takes {upper.in_shape}; give a chain")
    return [geometries[0].in_shape, *(geometry.out_shape for geometry in geometries)]


def _cosine_modes(height: int, width: int, number: int) -> Array:
    """Return the lowest cosine modes of an image, orthonormal columns [height·width, at most `number`]."""
    waves = [np.cos(np.pi * np.outer(np.arange(size) + 0.5, np.arange(size)) / size) for size in (height, width)]
    order = sorted(np.ndindex(height, width), key=lambda mode: (mode[0] / height) ** 2 + (mode[1] / width) ** 2)
    modes = np.stack([np.outer(waves[0][:, y], waves[1][:, x]).ravel() for y, x in order[:number]], axis=1)
    return modes / np.linalg.norm(modes, axis=0)


def _scaled(matrix: Array) -> Array:
    return matrix * math.sqrt(matrix.shape[1]) / np.linalg.norm(matrix)
