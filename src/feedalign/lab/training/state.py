"""What survives the interruption of a training: its state, to the last bit, and what was measured along the way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from feedalign.lab.runs import State


class Measurements:
    """Data sets of one shape, one for each measured time.

    Args:
        dim: name of the dimension along which they are put together.
    """

    def __init__(self, dim: str) -> None:
        self.dim = dim
        self.parts: list[xr.Dataset] = []

    def add(self, measured: xr.Dataset) -> None:
        """Add what was measured at the next time."""
        self.parts.append(measured)

    def dataset(self) -> xr.Dataset:
        """Return everything that was measured, along `dim`."""
        return xr.concat(self.parts, self.dim)

    def packed(self) -> Tensor:
        """Return everything as bytes in a Tensor; an empty one if nothing was measured yet."""
        content = bytes(self.dataset().to_netcdf(engine="h5netcdf")) if self.parts else b""
        return torch.from_numpy(np.frombuffer(content, np.uint8).copy())

    def unpack(self, content: Tensor) -> None:
        """Take back what `packed` gave."""
        if content.numel():
            whole = xr.load_dataset(io.BytesIO(content.numpy().tobytes()), engine="h5netcdf")
            self.parts = [whole.isel({self.dim: i}) for i in range(whole.sizes[self.dim])]


@dataclass
class Position:
    """Where a training stands.

    Attributes:
        epoch: passes through the data that are finished.
        batch: batches of the present epoch that are finished.
        step: batches in all that are finished.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Trained:
    """What changes while a network trains.

    Attributes:
        net: the network, its feedback among its buffers.
        optimizer: of its parameters.
        orders: the generators of the data's order.
        measurements: what is gathered along the way.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    orders: Sequence[torch.Generator]
    measurements: Measurements

    def state(self, at: Position, orders_then: Sequence[Tensor]) -> State:
        """Return the state at a position.

        `orders_then` are the states of the generators when the present epoch began; its order is drawn again from them.
        """
        packed = self.optimizer.state_dict()
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        numbers: dict[str, Any] = {}
        for key, entries in packed["state"].items():
            for name, value in entries.items():
                place = tensors if isinstance(value, Tensor) else numbers
                place[f"optimizer.{key}.{name}"] = value
        tensors |= {f"order.{i}": state for i, state in enumerate(orders_then)}
        tensors |= {"random": torch.get_rng_state(), "measurements": self.measurements.packed()}
        values = {"position": vars(at), "groups": packed["param_groups"], "numbers": numbers}
        return State({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, values)

    def restore(self, state: State) -> Position:
        """Put everything back as it was, and return where the training stood."""
        net = {name.removeprefix("net."): value for name, value in state.tensors.items() if name.startswith("net.")}
        self.net.load_state_dict(net)
        entries: dict[int, dict[str, Any]] = {}
        for name, value in [*state.tensors.items(), *state.values["numbers"].items()]:
            if name.startswith("optimizer."):
                _, key, entry = name.split(".", 2)
                entries.setdefault(int(key), {})[entry] = value
        groups = [{key: _tuples(value, key) for key, value in group.items()} for group in state.values["groups"]]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        for i, generator in enumerate(self.orders):
            generator.set_state(state.tensors[f"order.{i}"])
        torch.set_rng_state(state.tensors["random"])
        self.measurements.unpack(state.tensors["measurements"])
        return Position(**state.values["position"])


def _tuples(value: Any, key: str) -> Any:
    """Return an optimizer's setting as it was before JSON, which has no tuples. The indices in "params" are a list."""
    return tuple(value) if isinstance(value, list) and key != "params" else value
