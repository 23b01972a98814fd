"""The same batch with one sample fewer. It shows which axis is the batch where the shapes of one batch do not."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from feedalign.anatomy.values import mapped, tensors_in


def one_fewer(args: Any, kwargs: Any, samples: int) -> tuple[Any, Any] | None:
    """Return the inputs of a model without the last sample; None where no input shows its samples.

    Args:
        args: inputs by position.
        kwargs: inputs by keyword.
        samples: how many there are. Every Tensor whose first axis has this length loses its last entry.
    """

    def has_samples(tensor: Tensor) -> bool:
        return tensor.ndim > 0 and len(tensor) == samples

    if samples < 2 or not any(map(has_samples, tensors_in((args, kwargs)))):
        return None
    fewer: tuple[Any, Any] = mapped((args, kwargs), lambda one: one[:-1] if has_samples(one) else one)
    return fewer
