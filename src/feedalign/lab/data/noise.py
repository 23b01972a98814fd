"""Random labels for a known part of the samples, as in studies of memorisation, and accuracy with and without them."""

from __future__ import annotations

import torch
from torch import Tensor

from feedalign.errors import ArgumentError


def label_noise(labels: Tensor, fraction: float, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give exactly round(fraction * n) samples a label drawn uniformly from all classes.

    The draw may return the true label: of the chosen samples one in `classes` keeps it on average, so that fraction 1
    leaves no information about the images. From the same generator state, a larger fraction keeps the random labels
    of a smaller one and adds more.

    Args:
        labels: int64 [n].
        fraction: part of the samples that are chosen, 0 to 1.
        classes: labels are drawn from 0..classes-1.
        generator: source of the draws; the global one is not touched.

    Returns:
        The labels with noise, int64 [n], and the mask of the chosen samples, bool [n].

    Raises:
        ArgumentError: `fraction` is outside [0, 1], or a label outside 0..classes-1.
    """
    if not 0 <= fraction <= 1:
        raise ArgumentError(f"fraction must lie in [0, 1], got {fraction}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ArgumentError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to classes-1 = {classes - 1}"
        )
    n = labels.numel()
    order = torch.randperm(n, generator=generator, device=generator.device)
    drawn = torch.randint(classes, (n,), generator=generator, device=generator.device)
    mask = torch.zeros(n, dtype=torch.bool, device=labels.device)
    mask[order[: round(fraction * n)].to(labels.device)] = True
    return torch.where(mask, drawn.to(labels), labels), mask


def accuracy_by_mask(predicted: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tell apart how well a network knows its true labels and how well it has memorised random ones.

    Args:
        predicted: labels that a network predicts, int64 [..., n]; [networks, n] for an ensemble.
        labels: labels the network was trained on, int64 [n].
        mask: True for the samples whose label was drawn, bool [n], as `label_noise` returns it. One drawn label in
            `classes` is the true one; `mask & (labels != true_labels)` leaves these out.

    Returns:
        Share of samples whose predicted label is the one in `labels`: among the samples outside the mask (clean), and
        among those in the mask (corrupted), float64 [...]. NaN where there are no such samples.

    Raises:
        ArgumentError: the shapes do not fit.
    """
    if labels.shape != mask.shape or labels.ndim != 1 or predicted.shape[-1:] != labels.shape:
        raise ArgumentError(
            f"predicted {list(predicted.shape)}, labels {list(labels.shape)} and mask {list(mask.shape)} do not fit; "
            "expected [..., n], [n] and [n]"
        )
    right = (predicted == labels).double()
    return right[..., ~mask].mean(-1), right[..., mask].mean(-1)
