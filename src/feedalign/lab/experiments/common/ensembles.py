"""Ensembles of fully connected networks: made at a chosen scale, and measured network by network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional

from feedalign.alignment import cross_seed_overlap, gradient_alignment, weight_alignment
from feedalign.lab.experiments.common.gradient_noise import GradientNoise, cosines_with_true
from feedalign.lab.experiments.common.sampling import Sample
from feedalign.networks import EnsembleMLP
from feedalign.rules import DirectRule

# Training accuracy is that of so many images at most: with 5000 images its standard error is below 0.01.
COUNTED = 5000
# Batches over which the update alignment is averaged.
UPDATES = 5
# A network with a larger weight than this one has diverged. The initial weights are below 1; the derivatives of five
# layers of such weights are still numbers in float32.
LARGEST_WEIGHT = 1e6


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
        layers above the first, [layers − 1, networks]. Both on the CPU.
    """
    gradient = gradient_alignment(net, loss_fn, inputs, targets)
    by_layer = torch.stack([cosines.nanmean(-1) for cosines in gradient.per_sample.values()])
    return by_layer, torch.stack(list(weight_alignment(net).per_network.values())).cpu()


def cross_entropies(output: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each network, summed over the batch, [E]: output [E, B, C], labels [E, B]."""
    each = functional.cross_entropy(output.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(labels.shape).sum(-1)


def summed_cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy summed over networks and batch: output [E, B, C], labels [E, B]."""
    return cross_entropies(output, labels).sum()


def measured_ensemble(
    net: DirectRule, networks: EnsembleMLP, sample: Sample, probe: int, batch_size: int, noise: GradientNoise
) -> xr.Dataset:
    """Measure alignment on the first `probe` training images, cross-seed overlap and accuracy, network by network.

    Gradient alignment compares what the rule sends to the layers, sample by sample. Update alignment is the cosine
    between the gradients of a layer's weights that the optimizer is given, noise included, and the true ones: the mean
    over `UPDATES` batches of the probe's images, for every layer below the readout.

    Training accuracy counts agreement with the labels that the networks are given. It is also told apart: over the
    images whose label is the true one (`clean_accuracy`), and over the others (`corrupted_accuracy`, which says how
    much of the noise is memorised; NaN where there is no noise). All numbers of a network that has diverged are NaN.
    """
    E = networks.n_networks
    probe_x, probe_y = sample.train_x[:probe].expand(E, -1, -1), sample.train_y[:probe].expand(E, -1)
    lost = diverged(networks, probe_x)
    with _at_zero(networks, lost):
        by_layer, by_weight = alignment_by_network(net, summed_cross_entropy, probe_x, probe_y)
        pairs = cross_seed_overlap(networks.state_dicts()).pairs
        accuracies = _accuracies(networks, sample)
        updates = _update_alignment(net, networks, sample, batch_size, noise)
    dataset = xr.Dataset(
        {
            "gradient_alignment": (("layer", "network"), by_layer.numpy()),
            "update_alignment": (("layer", "network"), updates.cpu().numpy()),
            "weight_alignment": (("weight_layer", "network"), by_weight.numpy()),
            "overlap": ("pair", pairs.numpy()),
            **{name: ("network", values.cpu().numpy()) for name, values in accuracies.items()},
        },
        coords={
            "layer": np.arange(1, len(by_layer) + 1),
            "weight_layer": np.arange(2, len(by_weight) + 2),
            "network": np.arange(E),
            "pair": np.arange(len(pairs)),
        },
    )
    kept = xr.DataArray(~lost.cpu().numpy(), dims="network")  # the overlap with zero weights is NaN already
    return dataset.assign({name: dataset[name].where(kept) for name in dataset if "network" in dataset[name].dims})


@torch.no_grad()
def diverged(networks: EnsembleMLP, inputs: Tensor) -> Tensor:
    """Return which networks have weights or outputs that are no numbers, or weights beyond all reason, bool [E]."""
    largest = torch.stack([weight.abs().amax((1, 2)) for weight in networks.parameters()]).amax(0)
    outputs: Tensor = networks(inputs)
    return ~((largest < LARGEST_WEIGHT) & outputs.isfinite().all(-1).all(-1))


@contextmanager
def _at_zero(networks: EnsembleMLP, members: Tensor) -> Iterator[None]:
    """Within this context the weights of these networks are zero: one network without numbers stops no measurement."""
    held = [weight.detach().clone() for weight in networks.parameters()]
    try:
        with torch.no_grad():
            for weight in networks.parameters():
                weight[members] = 0
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(networks.parameters(), held, strict=True):
                weight.copy_(before)


def _update_alignment(
    net: DirectRule, networks: EnsembleMLP, sample: Sample, batch_size: int, noise: GradientNoise
) -> Tensor:
    """Return the mean cosine of the layers' gradients with the true ones, [hidden layers, E]; leaves no gradient."""
    weights = list(networks.parameters())
    found = []
    for x, y in zip(sample.train_x.split(batch_size)[:UPDATES], sample.train_y.split(batch_size), strict=False):
        batch, labels = x.expand(networks.n_networks, -1, -1), y.expand(networks.n_networks, -1)
        net.zero_grad(set_to_none=True)
        with net.backprop():
            true_loss = summed_cross_entropy(net(batch), labels)
        true = torch.autograd.grad(true_loss, weights)
        summed_cross_entropy(net(batch), labels).backward()
        noise.add(weights)
        found.append(cosines_with_true(weights[:-1], true[:-1]))
    net.zero_grad(set_to_none=True)
    return torch.stack(found).mean(0)


@torch.no_grad()
def _accuracies(networks: EnsembleMLP, sample: Sample) -> dict[str, Tensor]:
    """Return training accuracy, the same over clean and over corrupted labels, and test accuracy, [E] each."""
    labels, corrupted = sample.train_y[:COUNTED], sample.corrupted[:COUNTED]
    agree = (networks(sample.train_x[:COUNTED]).argmax(-1) == labels).double()
    return {
        "train_accuracy": agree.mean(-1),
        "clean_accuracy": agree[:, ~corrupted].mean(-1),
        "corrupted_accuracy": agree[:, corrupted].mean(-1),
        "test_accuracy": (networks(sample.test_x).argmax(-1) == sample.test_y).double().mean(-1),
    }
