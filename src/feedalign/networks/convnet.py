"""Small convolutional networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from feedalign.checks import flag, one_of, whole_number, whole_numbers
from feedalign.errors import ArgumentError
from feedalign.memory import check_memory
from feedalign.networks.mlp import ACTIVATIONS, draw_uniform, drawn_linear
from feedalign.streams import torch_generator

Pool = Literal["none", "average", "max"]
Head = Literal["flatten", "global-average"]


class ConvNet(nn.Sequential):
    """Blocks of convolution, batch-norm, activation and pooling, and a linear readout.

    Block i is the module "i". So the points that `points="auto"` finds are images, [channels, height, width], and
    feedback can tell their channels apart. The last module is the readout; it flattens the image or averages it over
    positions first.

    Weights and biases are uniform on ±1/√fan_in from a generator of the network's own.

    Args:
        in_shape: (channels, height, width) of the images.
        channels: of each block.
        classes: outputs.
        kernel_size: of the convolutions, an odd number. They are padded, so that only the stride makes an image
            smaller.
        stride: one number for all convolutions, or a sequence with one number for each.
        pool: pooling after the activation, over windows of 2 × 2: "none", "average" or "max".
        head: what the readout reads: "flatten" every position, "global-average" the mean over positions.
        batch_norm: whether a batch-norm follows each convolution; the convolution then has no bias.
        activation: "tanh", "relu" or "linear".
        seed: seed of the initial weights.

    Raises:
        ArgumentError: no block, a size that is no whole number of at least one, an even kernel, a stride for some
            blocks only, an unknown pool, head or activation, a batch_norm that is no bool, or more pooling than the
            image has pixels.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        channels: Sequence[int] = (32, 64, 64),
        classes: int = 10,
        *,
        kernel_size: int = 3,
        stride: int | Sequence[int] = 2,
        pool: Pool = "none",
        head: Head = "flatten",
        batch_norm: bool = True,
        activation: str = "relu",
        seed: int = 0,
    ) -> None:
        in_channels, height, width = whole_numbers("in_shape", in_shape, 1, length=3)
        widths = whole_numbers("channels", channels, 1)
        classes = whole_number("classes", classes, 1)
        kernel_size = whole_number("kernel_size", kernel_size, 1)
        if not widths or not kernel_size % 2:
            raise ArgumentError(
                f"got channels={widths} and kernel_size={kernel_size}; give one block and an odd kernel"
            )
        strides = _check_strides(stride, len(widths))
        one_of("pool", pool, get_args(Pool))
        one_of("head", head, get_args(Head))
        one_of("activation", activation, ACTIVATIONS)
        flag("batch_norm", batch_norm)
        generator = torch_generator(whole_number("seed", seed), "weights")
        pools: dict[str, list[nn.Module]] = {"none": [], "average": [nn.AvgPool2d(2)], "max": [nn.MaxPool2d(2)]}
        blocks: list[nn.Module] = []
        for (fan_in, fan_out), step in zip(itertools.pairwise((in_channels, *widths)), strides, strict=True):
            numbers = fan_in * fan_out * kernel_size**2
            check_memory(f"the kernels of {fan_out} channels", numbers, "give fewer channels or a smaller kernel")
            convolution: nn.Module = nn.utils.skip_init(
                nn.Conv2d, fan_in, fan_out, kernel_size, step, kernel_size // 2, bias=not batch_norm
            )
            for parameter in convolution.parameters():
                draw_uniform(parameter, fan_in * kernel_size**2, generator)
            norm = [nn.BatchNorm2d(fan_out)] if batch_norm else []
            blocks.append(nn.Sequential(convolution, *norm, ACTIVATIONS[activation](), *pools[pool]))
            window = 1 if pool == "none" else 2
            height, width = (((size - 1) // step + 1) // window for size in (height, width))
        if min(height, width) < 1:
            raise ArgumentError(
                f"images of {tuple(in_shape[1:])} are pooled to nothing in {len(widths)} blocks; take fewer"
            )
        averaging = head == "global-average"
        features = widths[-1] * (1 if averaging else height * width)
        check_memory(f"the weights of classes={classes}", features * classes, "give fewer classes or smaller images")
        readout = drawn_linear(features, classes, True, generator)
        super().__init__(
            *blocks, nn.Sequential(*([nn.AdaptiveAvgPool2d(1)] if averaging else []), nn.Flatten(), readout)
        )


def _check_strides(stride: int | Sequence[int], blocks: int) -> list[int]:
    """Return one stride for each block."""
    if not isinstance(stride, Sequence):
        return [whole_number("stride", stride, 1)] * blocks
    strides = whole_numbers("stride", stride, 1)
    if len(strides) != blocks:
        raise ArgumentError(f"got {len(strides)} strides for {blocks} blocks; give one each, or one number")
    return strides
