"""Conditioning: whether errors and alignment matrices leave DFA the room to align."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.alignment.weight import weight_of
from feedalign.anatomy import arguments, real_rows, recordable, same_state, tapped
from feedalign.checks import flag
from feedalign.errors import OutputError
from feedalign.rules import DirectRule, Wrapped, check_direct, check_wrapped


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of a matrix, and what they say of its conditioning.

    Attributes:
        values: descending, [..., r]; eigenvalues where the matrix is a covariance. Leading axes are the networks of
            an ensemble.
        rank: how many are not zero to the precision of the model; the smallest over the networks.
        condition_number: largest over smallest of those that are not zero, geometric mean over the networks; 1 is
            perfect. What lies in no direction at all is not counted: see `rank`.
        effective_rank: exp of the entropy of the values divided by their sum, mean over the networks: from 1, one
            direction, to r, all alike. Source: Roy & Vetterli (2007).
    """

    values: Tensor
    rank: int
    condition_number: float
    effective_rank: float


@dataclass(frozen=True, eq=False)
class AlignmentMatrix:
    """How a layer's weights lie along its feedback.

    Attributes:
        matrix: Â_l, [C, n_0] in the first layer, [C, C] above; of an ensemble [E, C, ...].
        spectrum: of it.
        residual: |W_l − F_l Â_l F_{l−1}ᵀ| / |W_l|: 0 where the layer has weak alignment exactly, 1 where nothing of its
            weights lies along the feedback, root mean square over the networks.
    """

    matrix: Tensor
    spectrum: Spectrum
    residual: float


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Conditioning of the errors and of every layer.

    Attributes:
        error: of the second moment of the errors, E[e eᵀ], [C, C]; not centred, as no update centres it.
        layers: by dotted name of the module that holds the weights, from the bottom.
        undefined: layers that have no such matrix, and why.
    """

    error: Spectrum
    layers: dict[str, AlignmentMatrix]
    undefined: dict[str, str]


def conditioning(net: DirectRule, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Conditioning:
    r"""Measure the conditioning of the errors on a batch and of the layers' alignment matrices.

    In a deep linear network trained by DFA from zero weights every layer has the form W_l = F_l A_l F_{l−1}ᵀ (weak
    alignment), and gradients align as far as the alignment matrices are well conditioned. Here they are estimated for
    any network by least squares,

    .. math:: \hat A_1 = F_1^+ W_1, \quad \hat A_l = F_l^+ W_l (F_{l-1}^+)^T, \quad \hat A_L = W_L (F_{L-1}^+)^T,

    with a residual that says how much of the weights they do not describe. One forward pass, and the backward pass of
    the loss alone. The model runs in the mode it is in; its buffers, the attributes of its modules and all random
    states are afterwards as before. Everything is computed in float64.

    Args:
        net: a wrapped model with feedback matrices at its points.
        loss_fn: scalar loss of (output, y); its reduction factor only scales the error's eigenvalues.
        x: input, a tuple of inputs, or a dict of inputs by keyword.
        y: whatever loss_fn takes.

    Returns:
        Spectra of the error and of every layer. The errors of a softmax sum to zero over the classes, so their rank is
        at most C − 1.

    Raises:
        ArgumentError: `net` is not wrapped, or its rule sends no error straight to a layer.
        OutputError: the loss has no gradient with respect to the output.
    Source: Refinetti et al. (2021), section 3.
    """
    check_direct(net, "so there are no alignment matrices; wrap the model in DFA")
    error = output_errors(net, loss_fn, x, y).double()
    mask = net.mask(*arguments(net.model, x))
    real = error.new_ones(1, dtype=torch.bool) if mask is None else real_rows(mask, error.shape[:-1])
    error = error[real.expand_as(error)[..., 0]]  # padding is no sample
    precision = torch.finfo(next(net.parameters()).dtype).eps
    modules = dict(net.model.named_modules())
    feedback = {name: matrix.double() for name, matrix in net.feedback_matrices.items()}
    layers, undefined = {}, {}
    below: Tensor | None = None
    for block in net.blocks:
        above = feedback.get(block.point)  # none above the readout
        label = ", ".join(block.weights) or block.point
        shape = (block.features, None if below is None else below.shape[0])
        weight = weight_of(block, modules, shape)
        if isinstance(weight, str):
            undefined[label] = weight
        else:
            layers[label] = _alignment_matrix(weight.detach().double(), above, below, precision)
        below = above
    # Singular values of the errors themselves: squared ones would lose half of the digits. What rounding of the entries
    # leaves is a few times `precision`, however many samples or inputs there are.
    singular = torch.linalg.svdvals(error / error.shape[0] ** 0.5)
    return Conditioning(spectrum_of(singular, error.shape[1] * precision, squared=True), layers, undefined)


@torch.inference_mode(False)
@torch.enable_grad()
def output_errors(
    net: Wrapped, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any, *, silent: bool = False
) -> Float[Tensor, "*batch outputs"]:
    """Return e = ∂loss/∂output on a batch, [*batch, C], with the loss's reduction factor.

    One forward pass, and the backward pass of the loss alone. The model runs in the mode it is in; its buffers, the
    attributes of its modules and all random states are afterwards as before. Errors of padding are returned like all
    others.

    Args:
        net: a wrapped model.
        loss_fn: scalar loss of (output, y).
        x: input, a tuple of inputs, or a dict of inputs by keyword.
        y: whatever loss_fn takes.
        silent: take the error of an output that is zero, instead of the model's own.

    Raises:
        ArgumentError: `net` is not wrapped, or `silent` is no bool.
        OutputError: the loss is not one number with a gradient.
    """
    check_wrapped(net)
    flag("silent", silent)

    def leaf(tensor: Tensor) -> Tensor:
        return (torch.zeros_like(tensor) if silent else tensor.detach()).requires_grad_()

    args, kwargs = arguments(net.model, x)
    with same_state(net.model):
        # Where the error is taken inside of the pass, what follows there is a part of the loss.
        with torch.set_grad_enabled(bool(net.error_tap.places)), net.backprop():
            output, leaves = tapped(net.model, net.error_tap, lambda: net(*args, **kwargs), leaf)
        loss = loss_fn(output, recordable(y))
        if loss.numel() != 1 or not loss.requires_grad:
            raise OutputError(
                f"loss_fn must give one number with a gradient, got shape {tuple(loss.shape)}, "
                f"requires_grad={loss.requires_grad}; sum or average over the batch, and do not detach"
            )
        return net.error_tap.rows(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


def _alignment_matrix(weight: Tensor, above: Tensor | None, below: Tensor | None, precision: float) -> AlignmentMatrix:
    left, right = (None if F is None else torch.linalg.pinv(F) for F in (above, below))
    matrix = _between(left, weight, right)
    described = matrix if above is None else above @ matrix
    described = described if below is None else described @ below.T
    norms = [torch.linalg.vector_norm(each, dim=(-2, -1)).square().mean() for each in (weight - described, weight)]
    singular = torch.linalg.svdvals(_between(_short(left), weight, _short(right)))
    zeros = singular.new_zeros(*singular.shape[:-1], min(matrix.shape[-2:]) - singular.shape[-1])
    spectrum = spectrum_of(torch.cat([singular, zeros], -1), matrix.shape[-2] * precision)
    return AlignmentMatrix(matrix, spectrum, float((norms[0] / norms[1]).sqrt()))


def _between(left: Tensor | None, weight: Tensor, right: Tensor | None) -> Tensor:
    """Return left · weight · rightᵀ; None stands for the identity."""
    found = weight if left is None else left @ weight
    return found if right is None else found @ right.T


def _short(tall: Tensor | None) -> Tensor | None:
    """Return R of a matrix Q R that has more rows than columns; Q changes no singular value of a product.

    So with more outputs than units no singular values of a matrix of outputs by outputs are computed.
    """
    if tall is None or tall.shape[0] <= tall.shape[1]:
        return tall
    R: Tensor = torch.linalg.qr(tall, mode="r").R
    return R


def spectrum_of(singular: Tensor, tolerance: float, *, squared: bool = False) -> Spectrum:
    """Return the spectrum of descending singular values.

    Args:
        singular: [..., r].
        tolerance: those up to this share of the largest are taken for zero.
        squared: the matrix is A Aᵀ, the singular values those of A.
    """
    present = singular > tolerance * singular[..., :1]
    values = singular.square() if squared else singular
    smallest = torch.where(present, values, torch.inf).amin(-1)
    share = torch.where(present, values, 0.0)
    share = share / share.sum(-1, keepdim=True)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    return Spectrum(
        values=values,
        rank=int(present.sum(-1).min()),
        condition_number=float((values[..., 0] / smallest).log().mean().exp()),
        effective_rank=float(entropy.exp().mean()),
    )
