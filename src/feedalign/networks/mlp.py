"""Fully connected networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from feedalign.checks import flag, one_of, whole_number, whole_numbers
from feedalign.errors import ArgumentError
from feedalign.memory import check_memory
from feedalign.streams import torch_generator

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "linear": nn.Identity}


class MLP(nn.Sequential):
    """Linear layers with an activation after each but the last: modules "0", "1", ... in the order they run.

    Weights and biases are uniform on ±1/√fan_in, as PyTorch draws them, but from a generator of the network's own.

    Args:
        sizes: widths of input, hidden layers and output, at least two.
        activation: "tanh", "relu" or "linear".
        bias: whether the layers have biases.
        seed: seed of the initial weights.

    Raises:
        ArgumentError: fewer than two sizes, a size that is no whole number of at least one, sizes whose weights do not
            fit this machine's memory, an unknown activation, a bias that is no bool, or a seed that is no whole number.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "tanh", bias: bool = True, seed: int = 0) -> None:
        generator = torch_generator(whole_number("seed", seed), "weights")
        flag("bias", bias)
        super().__init__(*layers_of(sizes, activation, partial(drawn_linear, bias=bias, generator=generator)))


def layers_of(
    sizes: Sequence[int], activation: str, layer: Callable[[int, int], nn.Module], networks: int = 1
) -> list[nn.Module]:
    """Return layer(fan_in, fan_out) for each pair of neighbouring sizes, with activations in between.

    Raises:
        ArgumentError: a size or the activation is wrong, or so many networks do not fit the machine's memory.
    """
    widths = whole_numbers("sizes", sizes, 1)
    weights = sum(fan_in * fan_out for fan_in, fan_out in itertools.pairwise(widths))
    check_memory(f"the weights of sizes={widths}", networks * weights, "give smaller sizes, or fewer networks")
    if len(widths) < 2:
        raise ArgumentError(f"sizes={widths} must name the widths of input, hidden layers and output: at least two")
    one_of("activation", activation, ACTIVATIONS)
    modules: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        modules += [layer(fan_in, fan_out), ACTIVATIONS[activation]()]
    return modules[:-1]


def drawn_linear(fan_in: int, fan_out: int, bias: bool, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer whose weights, and biases if it has them, are uniform on ±1/√fan_in."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias)
    for parameter in linear.parameters():
        draw_uniform(parameter, fan_in, generator)
    return linear


@torch.no_grad()
def draw_uniform(parameter: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Fill with numbers uniform on ±1/√fan_in, in the order of the indices whatever the order in memory."""
    drawn = torch.empty_like(parameter, memory_format=torch.contiguous_format)
    parameter.copy_(drawn.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator))
