"""What is measured along a run: losses, accuracies, and alignment layer by layer."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import cross_entropy

from feedalign.alignment import gradient_alignment, weight_alignment
from feedalign.anatomy import undisturbed
from feedalign.errors import OutputError
from feedalign.lab.data import accuracy_by_mask
from feedalign.lab.options import TrainConfig
from feedalign.lab.own_training.samples import Samples
from feedalign.rules import DirectRule, Wrapped

# Training loss and accuracy are those of so many samples at most, the first ones: a measurement is to cost little.
MOST_EVALUATED = 5_000
CHUNK = 1000  # samples that are evaluated at once


def measure(net: Wrapped, config: TrainConfig, samples: Samples) -> xr.Dataset:
    """Return losses, accuracies and alignment as they are now; the net is as before.

    Where labels are noisy, the training accuracy on the clean and on the noisy samples is there apart. A rule that
    passes the error on layer by layer has no gradient alignment. Alignment is NaN where it is not
    defined: gradient alignment of the readout, which has the true gradient under every rule; weight alignment of the
    first layer; everywhere, if gradients are not finite.
    """
    train_x, train_y, noisy = (part[:MOST_EVALUATED] for part in (samples.train_x, samples.train_y, samples.noisy))
    with undisturbed(net, net.model):
        train_loss, predicted = _evaluated(net, train_x, train_y)
        test_loss, test_predicted = _evaluated(net, samples.test_x, samples.test_y)
        layers = _alignment(net, train_x[: config.probe], train_y[: config.probe])
    dataset = xr.Dataset(
        {
            "train_loss": train_loss,
            "train_accuracy": float((predicted == train_y).double().mean()),
            "test_loss": test_loss,
            "test_accuracy": float((test_predicted == samples.test_y).double().mean()),
        }
    )
    if config.label_noise:
        clean, corrupted = accuracy_by_mask(predicted, train_y, noisy)
        dataset["clean_accuracy"], dataset["noisy_accuracy"] = float(clean), float(corrupted)
    return dataset.merge(layers)


@torch.no_grad()
def _evaluated(net: Wrapped, inputs: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Return the mean loss, and the predicted label of each sample."""
    loss, predicted = 0.0, []
    for x, y in zip(inputs.split(CHUNK), labels.split(CHUNK), strict=True):
        output = net(x)
        loss += float(cross_entropy(output, y).double()) * len(y)
        predicted.append(output.argmax(1))
    return loss / len(labels), torch.cat(predicted)


def _alignment(net: Wrapped, x: Tensor, y: Tensor) -> xr.Dataset:
    """Return gradient and weight alignment by layer; a layer has the name of the module that holds its weights."""
    quantities = {"weight_alignment": weight_alignment(net).layers}
    layers = list(quantities["weight_alignment"])
    if isinstance(net, DirectRule):
        try:
            at_points = gradient_alignment(net, cross_entropy, x, y).layers
        except OutputError:  # some derivative is not finite: the net diverges
            at_points = {}
        labels = {block.point: ", ".join(block.weights) or block.point for block in net.blocks}
        layers = list(labels.values())
        quantities = {"gradient_alignment": {labels[at]: value for at, value in at_points.items()}} | quantities
    values = {name: ("layer", [of.get(layer, np.nan) for layer in layers]) for name, of in quantities.items()}
    return xr.Dataset(values, {"layer": layers})
