"""Many networks of one shape trained side by side in batched matrix products: many seeds at about the cost of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from feedalign.checks import flag, whole_number, whole_numbers
from feedalign.errors import ArgumentError
from feedalign.memory import check_memory
from feedalign.networks.mlp import draw_uniform, layers_of
from feedalign.streams import torch_generator


class EnsembleLinear(nn.Module):
    """A linear layer for each of E networks: weight [E, out, in], bias [E, 1, out]."""

    def __init__(
        self, n_networks: int, in_features: int, out_features: int, bias: bool, generators: Sequence[torch.Generator]
    ) -> None:
        super().__init__()
        self.n_networks, self.in_features, self.out_features = n_networks, in_features, out_features
        # In memory [E, in, out]: then every product of a step, gradients included, comes out in the order in which the
        # next product reads it.
        self.weight = nn.Parameter(torch.empty(n_networks, in_features, out_features).mT)
        self.bias = nn.Parameter(torch.empty(n_networks, 1, out_features)) if bias else None
        for parameter in self.parameters():
            for one, generator in zip(parameter, generators, strict=True):
                draw_uniform(one, in_features, generator)

    def forward(self, x: Float[Tensor, "*networks batch inputs"]) -> Float[Tensor, "networks batch outputs"]:
        """Apply each network's layer; x [batch, in] goes to all of them."""
        x = x.expand(self.n_networks, -1, -1)
        if self.bias is None:
            return torch.bmm(x, self.weight.mT)
        return torch.baddbmm(self.bias, x, self.weight.mT)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.n_networks} x {self.in_features} -> {self.out_features}, bias={self.bias is not None}"


class EnsembleMLP(nn.Sequential):
    """E independent `MLP`s: x [E, batch, in], or [batch, in] for all of them, to [E, batch, out].

    A loss that is summed over the networks gives each network the gradient that it would have alone, under every rule.
    All networks share one feedback matrix, so they differ in initialisation and data order only. Network i starts, bit
    for bit, as the `MLP` with seed `seeds[i]`.

    `cross_entropy(output.mT, labels, reduction="sum")` with labels [E, batch] is a loss summed over the networks, and
    faster than the same loss of a flattened output. The weights lie in memory as [E, in, out], so
    `safetensors.torch.save_file` refuses the state of the ensemble. It takes each entry of `state_dicts()`, and
    `safetensors.torch.save_model` takes the ensemble.

    Args:
        n_networks: E.
        sizes: widths of input, hidden layers and output, at least two.
        activation: "tanh", "relu" or "linear".
        bias: whether the layers have biases.
        seeds: seed of each network's initial weights; 0, ..., E − 1 unless given.

    Raises:
        ArgumentError: no network, not one seed per network, fewer than two sizes, a size or a seed that is no whole
            number, weights that do not fit this machine's memory, an unknown activation, or a bias that is no bool.
    """

    def __init__(
        self,
        n_networks: int,
        sizes: Sequence[int],
        activation: str = "tanh",
        bias: bool = True,
        seeds: Sequence[int] | None = None,
    ) -> None:
        n_networks = whole_number("n_networks", n_networks, 1)
        check_memory(f"n_networks={n_networks}", n_networks, "give fewer networks")
        flag("bias", bias)
        own = whole_numbers("seeds", range(n_networks) if seeds is None else seeds)
        if len(own) != n_networks:
            raise ArgumentError(f"got {len(own)} seeds for {n_networks} networks; give one each")
        generators = [torch_generator(seed, "weights") for seed in own]
        layer = partial(EnsembleLinear, n_networks, bias=bias, generators=generators)
        super().__init__(*layers_of(sizes, activation, layer, n_networks))
        self.n_networks = n_networks

    def state_dicts(self) -> list[dict[str, Tensor]]:
        """Return a copy of the state of each network, as the single `MLP` would save it."""

        def copy(name: str, tensor: Tensor) -> Tensor:
            own = tensor.squeeze(0) if name.endswith("bias") else tensor
            return own.clone(memory_format=torch.contiguous_format)

        state = self.state_dict()
        return [{name: copy(name, tensor[i]) for name, tensor in state.items()} for i in range(self.n_networks)]
