"""Small convolutional networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from feedalign.errors import ArgumentError
from feedalign.networks.mlp import ACTIVATIONS, draw_uniform

Pool = Literal["none", "average", "max"]
Head = Literal["flatten", "global-average"]


class ConvNet(nn.Sequential):
    """Blocks of convolution, batch-norm, activation and pooling, and a linear readout.

    Block i is the module "i", so that the points `points="auto"` finds are images, [channels, height, width]: feedback
    can still tell their channels. The last module is the readout, flattening or averaging over positions included.

    Weights and biases are uniform on ±1/√fan_in from a generator of the network's own.

    Args:
        in_shape: (channels, height, width) of the images.
        channels: of each block.
        classes: outputs.
        kernel_size: of the convolutions, padded so that only the stride makes an image smaller; odd.
        stride: of each convolution, or of all.
        pool: after the activation, over windows of 2 × 2.
        head: of the readout: "flatten" reads every position, "global-average" their mean.
        batch_norm: whether there is batch-norm; the convolution then has no bias.
        activation: "tanh", "relu" or "linear".
        seed: seed of the initial weights.

    Raises:
        ArgumentError: no block, sizes below one, an even kernel, a stride for some blocks only, an unknown pool, head
            or activation, or images that do not last: pooled to nothing.
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
        strides = [stride] * len(channels) if isinstance(stride, int) else list(stride)
        if not channels or min(*in_shape, *channels, classes, kernel_size, *strides) < 1 or not kernel_size % 2:
            raise ArgumentError(
                f"in_shape={in_shape}, channels={list(channels)}, classes={classes}, kernel_size={kernel_size}, "
                f"stride={stride} must be at least 1, with at least one block and an odd kernel"
            )
        if len(strides) != len(channels):
            raise ArgumentError(f"got {len(strides)} strides for {len(channels)} blocks; give one each, or one number")
        for name, value, known in (
            ("pool", pool, ("none", "average", "max")),
            ("head", head, ("flatten", "global-average")),
            ("activation", activation, tuple(ACTIVATIONS)),
        ):
            if value not in known:
                raise ArgumentError(f"{name}={value!r} is unknown; expected one of {', '.join(known)}")
        generator = torch.Generator().manual_seed(seed)
        pools: dict[str, list[nn.Module]] = {"none": [], "average": [nn.AvgPool2d(2)], "max": [nn.MaxPool2d(2)]}
        blocks: list[nn.Module] = []
        height, width = in_shape[1:]
        for (fan_in, fan_out), step in zip(itertools.pairwise((in_shape[0], *channels)), strides, strict=True):
            convolution: nn.Module = nn.utils.skip_init(
                nn.Conv2d, fan_in, fan_out, kernel_size, step, kernel_size // 2, bias=not batch_norm
            )
            for parameter in convolution.parameters():
                draw_uniform(parameter, fan_in * kernel_size**2, generator)
            norm = [nn.BatchNorm2d(fan_out)] if batch_norm else []
            blocks.append(nn.Sequential(convolution, *norm, ACTIVATIONS[activation](), *pools[pool]))
            height, width = ((size - 1) // step + 1 for size in (height, width))
            height, width = (size // 2 for size in (height, width)) if pool != "none" else (height, width)
        if min(height, width) < 1:
            raise ArgumentError(f"images of {in_shape[1:]} are pooled to nothing in {len(channels)} blocks; take fewer")
        averaging = head == "global-average"
        features = channels[-1] * (1 if averaging else height * width)
        readout = nn.utils.skip_init(nn.Linear, features, classes)
        for parameter in readout.parameters():
            draw_uniform(parameter, features, generator)
        super().__init__(
            *blocks, nn.Sequential(*([nn.AdaptiveAvgPool2d(1)] if averaging else []), nn.Flatten(), readout)
        )
