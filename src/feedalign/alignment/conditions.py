"""Conditioning: whether errors and alignment matrices leave DFA the room to align."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.alignment.spectra import Spectrum, spectrum_of
from feedalign.alignment.true_pass import check_loss
from feedalign.alignment.weak import AlignmentMatrix, alignment_matrix
from feedalign.alignment.weight import weight_of
from feedalign.anatomy import arguments, real_rows, recordable, same_state, tapped
from feedalign.checks import flag
from feedalign.feedback import Factors
from feedalign.rules import DirectRule, Wrapped, check_direct, check_wrapped, reshard


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
    states are afterwards as before. Everything is computed in float64, and from the numbers that are stored: no F_l is
    made. Alignment matrices are made unless they are too large; see `AlignmentMatrix.matrix`.

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
    masks = net.masks_of(*arguments(net.model, x))
    mask = None if masks is None else masks.of_error
    real = error.new_ones(1, dtype=torch.bool) if mask is None else real_rows(mask, error.shape[:-1])
    error = error[real.expand_as(error)[..., 0]]  # padding is no sample
    precision = torch.finfo(next(net.parameters()).dtype).eps
    modules = dict(net.model.named_modules())
    net.feedback.check_drawn()
    net.settle()
    layers, undefined = {}, {}
    below: Factors | None = None
    for block in net.blocks:
        above = net.feedback.factors(block.point)  # none above the readout
        shape = block.features if above is None else above.features, None if below is None else below.features
        weight = weight_of(block, modules, shape)
        if isinstance(weight, str):
            undefined[block.label] = weight
        else:
            layers[block.label] = alignment_matrix(weight.detach().double(), above, below, precision)
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
        reshard(net)
        loss = check_loss(loss_fn(output, recordable(y)))
        return net.error_tap.rows(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))
