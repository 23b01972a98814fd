"""Ensembles of fully connected networks: made at a chosen scale, and measured network by network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional

from feedalign.alignment import cross_seed_overlap, gradient_alignment, weight_alignment
from feedalign.lab.experiments.common.images import ImageTask
from feedalign.networks import EnsembleMLP
from feedalign.rules import DirectRule


def scaled_ensemble(
    sizes: Sequence[int], activation: Literal["linear", "tanh", "relu"], seeds: Sequence[int], scale: float
) -> EnsembleMLP:
    """Return networks without biases, one for each seed, whose initial weights are PyTorch's times `scale`."""
    networks = EnsembleMLP(len(seeds), sizes, activation, bias=False, seeds=seeds)
    with torch.no_grad():
        for weight in networks.parameters():
            weight.mul_(scale)
    return networks


def alignment_by_network(
    net: DirectRule, loss_fn: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Measure every network of a wrapped ensemble.

    Returns:
        Gradient alignment of the hidden layers, mean over samples, [hidden layers, networks]; weight alignment of the
        layers above the first, [layers − 1, networks].
    """
    gradient = gradient_alignment(net, loss_fn, inputs, targets)
    by_layer = torch.stack([cosines.nanmean(-1) for cosines in gradient.per_sample.values()])
    return by_layer, torch.stack(list(weight_alignment(net).per_network.values()))


def summed_cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy summed over networks and batch: output [E, B, C], labels [E, B]."""
    return functional.cross_entropy(output.flatten(0, 1), labels.flatten(), reduction="sum")


def measured_ensemble(net: DirectRule, networks: EnsembleMLP, task: ImageTask, probe: int) -> xr.Dataset:
    """Measure alignment on the first `probe` training images, cross-seed overlap and accuracy, network by network."""
    E = networks.n_networks
    probe_x, probe_y = task.train_x[:probe].expand(E, -1, -1), task.train_y[:probe].expand(E, -1)
    by_layer, by_weight = alignment_by_network(net, summed_cross_entropy, probe_x, probe_y)
    pairs = cross_seed_overlap(networks.state_dicts()).pairs
    with torch.no_grad():
        train_accuracy = (networks(task.train_x[:5000]).argmax(-1) == task.train_y[:5000]).double().mean(-1)
        test_accuracy = (networks(task.test_x).argmax(-1) == task.test_y).double().mean(-1)
    return xr.Dataset(
        {
            "gradient_alignment": (("layer", "network"), by_layer.numpy()),
            "weight_alignment": (("weight_layer", "network"), by_weight.numpy()),
            "overlap": ("pair", pairs.numpy()),
            "train_accuracy": ("network", train_accuracy.numpy()),
            "test_accuracy": ("network", test_accuracy.numpy()),
        },
        coords={
            "layer": np.arange(1, len(by_layer) + 1),
            "weight_layer": np.arange(2, len(by_weight) + 2),
            "network": np.arange(E),
            "pair": np.arange(len(pairs)),
        },
    )
