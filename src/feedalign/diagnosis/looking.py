"""A look at the untrained net: its errors, and what its inputs tell of its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from feedalign.alignment import output_errors
from feedalign.anatomy import undisturbed
from feedalign.diagnosis.batches import Batches, seeded, told
from feedalign.diagnosis.expectation import Seen
from feedalign.errors import ArgumentError
from feedalign.rules import DirectRule

# Above this many numbers Σ_yx is not made; what is expected is then what isotropic inputs would give.
LARGEST = 10**8


def look(net: DirectRule, loss_fn: Callable[[Any, Any], Tensor], batches: Batches, samples: int, seed: int) -> Seen:
    """Collect errors and the input-output covariance of the untrained net, over batches of one size.

    Raises:
        ArgumentError: there is no error to learn from, or the user's code raised.
    """
    errors: list[Tensor] = []
    silent: list[Tensor] = []
    covariance = _Covariance()
    size = None
    with undisturbed(net), seeded(seed):
        for number, (x, y) in enumerate(batches):
            with told(f"model or loss function, on batch {number},", "every batch must be like the first"):
                e = output_errors(net, loss_fn, x, y)
                # A smaller last batch has a larger share of the loss for each sample.
                if size not in (None, e.shape[:-1]):
                    break
                size = e.shape[:-1]
                e0 = output_errors(net, loss_fn, x, y, silent=True).flatten(0, -2).double()
            errors.append(e.flatten(0, -2).double())
            silent.append(e0)
            covariance.add(e0, _vectors(x, size))
            if sum(map(len, errors)) >= samples:
                break
    e, e0 = torch.cat(errors), torch.cat(silent)
    if not (e.any() and e0.any() and e.isfinite().all() and e0.isfinite().all()):
        raise ArgumentError(
            "the errors of the untrained net are zero or not finite, so there is nothing to learn from; look for nan "
            "in the inputs, and see that the loss depends on the output"
        )
    total = covariance.total
    if total is None or not total.any():
        values, basis = torch.linalg.eigh(e0.T @ e0)  # with isotropic inputs Σ_yx Σ_xy is this
        return Seen(e.cpu().numpy(), (basis * values.clamp(min=0).sqrt()).cpu().numpy(), True)
    return Seen(e.cpu().numpy(), (total / len(e)).cpu().numpy(), False)


class _Covariance:
    """The sum of −e₀ xᵀ over batches, [C, n_0]; None as soon as inputs are not vectors of one length."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.known = True

    def add(self, e0: Tensor, inputs: Tensor | None) -> None:
        self.known = self.known and inputs is not None and inputs.shape[1] * e0.shape[1] <= LARGEST
        if self.known and inputs is not None and self.total is not None:
            self.known = self.total.shape[1] == inputs.shape[1]
        if not self.known or inputs is None:
            self.total = None
            return
        product = -e0.T @ inputs
        self.total = product if self.total is None else self.total + product


def _vectors(x: Any, batch: torch.Size) -> Tensor | None:
    """Return inputs as [samples, n_0]; None where they are indices, several, or not one for each error."""
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.shape[: len(batch)] == batch):
        return None
    return x.detach().reshape(batch.numel(), -1).double()
