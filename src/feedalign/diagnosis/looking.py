"""A look at the untrained net: its errors, and what its inputs tell of its targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from feedalign.alignment import output_errors
from feedalign.anatomy import undisturbed
from feedalign.diagnosis.expectation import Seen
from feedalign.diagnosis.preparing import Task
from feedalign.diagnosis.users_code import seeded, told
from feedalign.errors import ArgumentError
from feedalign.rules import DirectRule

# Above this many numbers Σ_yx is not made; what is expected is then what isotropic inputs would give.
LARGEST = 10**8
# Errors are looked at until they are so many numbers: with 1000 outputs, those of 10 000 samples. They are decomposed,
# which takes minutes where there are thousands of outputs and of samples.
MOST_ERRORS = 10**7


def look(net: DirectRule, task: Task, samples: int) -> Seen:
    """Collect errors and the input-output covariance of the untrained net, over batches of one size.

    No further batch is read once there are errors of `samples` samples, or ten million numbers. ArgumentError if there
    is no error to learn from, or the user's code raised.
    """
    errors: list[Tensor] = []
    silent: list[Tensor] = []
    total: Tensor | None = torch.zeros(())  # of −e₀ xᵀ, [C, n_0]; None once inputs are not vectors of one length
    size = None
    with undisturbed(net, net.model), seeded(task.seed):
        for number, (x, y) in enumerate(task.batches):
            with told(f"model or loss function, on batch {number},", "every batch must be like the first"):
                e = output_errors(net, task.loss_fn, x, y)
                # A smaller last batch has a larger share of the loss for each sample.
                if size not in (None, e.shape[:-1]):
                    break
                size = e.shape[:-1]
                e0 = output_errors(net, task.loss_fn, x, y, silent=True).flatten(0, -2).double()
            errors.append(e.flatten(0, -2).double())
            silent.append(e0)
            total = _added(total, e0, x, size)
            if sum(map(len, errors)) >= min(samples, MOST_ERRORS // e0.shape[1]):
                break
    e, e0 = torch.cat(errors), torch.cat(silent)
    if not (e.any() and e0.any() and e.isfinite().all() and e0.isfinite().all()):
        raise ArgumentError(
            "the errors of the untrained net are zero or not finite, so there is nothing to learn from; look for nan "
            "in the inputs, and see that the loss depends on the output"
        )
    isotropic = total is None or not total.any()
    if total is None or isotropic:
        # With isotropic inputs Σ_yx Σ_xy is e₀ᵀ e₀, [C, C]. R of e₀ = Q R has as many rows as there are directions.
        total = (e0 if len(e0) <= e0.shape[1] else torch.linalg.qr(e0, mode="r").R).T * len(e)
    return Seen(e.cpu().numpy(), (total / len(e)).cpu().numpy(), isotropic)


def _added(total: Tensor | None, e0: Tensor, x: Any, batch: torch.Size) -> Tensor | None:
    """Return the total with −e₀ xᵀ of one more batch; None where inputs are no vectors of one length."""
    if total is None or not (isinstance(x, Tensor) and x.layout == torch.strided and x.is_floating_point()):
        return None
    if x.shape[: len(batch)] != batch:
        return None
    inputs = x.detach().reshape(len(e0), -1).double()
    shape = (e0.shape[1], inputs.shape[1])
    if shape[0] * shape[1] > LARGEST or (total.ndim and total.shape != shape):
        return None
    added: Tensor = total.to(e0.device) - e0.T @ inputs
    return added
