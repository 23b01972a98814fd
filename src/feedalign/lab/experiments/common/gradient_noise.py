"""Noise on the gradients of an ensemble, of a length that is given relative to the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from feedalign.checks import number_at_least, one_of
from feedalign.streams import torch_generator

NoiseKind = Literal["none", "random", "fixed"]


@dataclass
class GradientNoise:
    r"""Adds to the gradient of every weight matrix a Gaussian matrix of chosen relative length.

    .. math:: g ← g + ρ \, |g| \, N / |N|

    A matrix N has nearly no angle with g, so the cosine of the two sides of the arrow is 1/√(1 + ρ²).

    Attributes:
        kind: "random": N is drawn anew for each step and each network; "fixed": one N for the whole training, shared by
            the networks; "none": nothing is added.
        norm: ρ.
        first_seed: seed of the stream.
        draw: number of the draw, which has a stream of its own.
        step: steps done; whoever trains keeps it up to date. The noise of a step depends on nothing else, so a training
            that was interrupted goes on with the same noise.

    Raises:
        ArgumentError: `kind` is unknown, or `norm` is no finite number of at least 0.
    """

    kind: NoiseKind
    norm: float
    first_seed: int
    draw: int
    step: int = 0

    def __post_init__(self) -> None:
        one_of("noise_kind", self.kind, get_args(NoiseKind))
        number_at_least("noise_norm", self.norm, 0)

    def add(self, weights: Iterable[nn.Parameter]) -> None:
        """Add the noise of the present step to the gradients of weights [E, out, in]."""
        if self.kind == "none":
            return
        which = ("fixed",) if self.kind == "fixed" else (self.step,)
        generator = torch_generator(self.first_seed, "gradient noise", self.draw, *which)
        for weight in weights:
            shape = weight.shape if self.kind == "random" else weight.shape[1:]
            noise = torch.randn(shape, generator=generator).to(weight.device).expand_as(weight)
            if weight.grad is not None:
                weight.grad += self.norm * _lengths(weight.grad) / _lengths(noise) * noise


def cosines_with_true(weights: Iterable[nn.Parameter], true: Iterable[Tensor]) -> Tensor:
    """Return the cosines of the gradients that weights [E, out, in] have with the true ones, [weights, E].

    Not a number where a gradient is zero or missing.
    """
    return torch.stack([
        torch.full(there.shape[:1], torch.nan, dtype=torch.float64, device=there.device)
        if weight.grad is None
        else _cosine(weight.grad.double(), there.double())
        for weight, there in zip(weights, true, strict=True)
    ])  # fmt: skip


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2)) / (_lengths(a) * _lengths(b)).flatten()


def _lengths(matrices: Tensor) -> Tensor:
    """Return the lengths of matrices [E, out, in], as [E, 1, 1]."""
    lengths: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    return lengths
