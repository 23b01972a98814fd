"""Feedback in several processes: the same in all of them, and learned from the batches of all of them.

`DistributedDataParallel` averages gradients, and at each forward pass it sends the buffers that it knew when it was
built. It does not know feedback that was drawn later, and learned feedback it would overwrite with what one process
learned. `fully_shard` shards parameters alone: every process holds the whole feedback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, distributed, nn

from feedalign.errors import ArgumentError
from feedalign.torch_private import data_parallel_group


def sharded_modules(model: nn.Module) -> list[Any]:
    """Return the modules of a model that `torch.distributed.fsdp.fully_shard` was called on."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return []
    from torch.distributed.fsdp import FSDPModule  # loaded where it can matter: it takes long

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def check_whole(model: nn.Module, what: str) -> None:
    """Raise ArgumentError, which says `what` cannot be done, if `fully_shard` was called on a model or a part of it."""
    if sharded_modules(model):
        raise ArgumentError(
            f"{what} cannot be done with a model that fully_shard has sharded: the gradients come to the shards alone, "
            "and torch copies no such model; use a model of the same code that is not sharded, with the state that "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict gives with full_state_dict=True"
        )


def reshard(model: nn.Module) -> None:
    """Shard what `fully_shard` has gathered for a forward pass without a backward pass.

    The root of a sharded model would otherwise stay whole, and an optimizer made then would not see its shards.
    """
    for module in sharded_modules(model):
        module.reshard()


def group_of_shards(model: nn.Module) -> distributed.ProcessGroup:
    """Return the processes among which a sharded model is sharded.

    Raises:
        ArgumentError: they form a mesh of several dimensions, or no parameter is sharded.
    """
    from torch.distributed.tensor import DTensor

    meshes = {parameter.device_mesh for parameter in model.parameters() if isinstance(parameter, DTensor)}
    if len(meshes) != 1 or (mesh := next(iter(meshes))).ndim != 1:
        raise ArgumentError(
            f"the parameters of the model lie on {len(meshes)} device meshes, expected one of one dimension, so that "
            "the feedback can be the same in all processes; shard with a mesh of one dimension, before the first pass"
        )
    group: distributed.ProcessGroup = mesh.get_group()
    return group


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together; without a `group` it is this process alone."""

    group: distributed.ProcessGroup | None = None

    @classmethod
    def of_this_pass(cls, shards: distributed.ProcessGroup | None) -> Processes:
        """Return those of the `DistributedDataParallel` whose forward pass is running, else the shards of a model."""
        return cls(data_parallel_group() or shards)

    def from_first(self, tensor: Tensor) -> Tensor:
        """Return the tensor of the first process, in every process."""
        if self.group is None:
            return tensor
        tensor = tensor.contiguous()
        distributed.broadcast(tensor, distributed.get_global_rank(self.group, 0), self.group)
        return tensor

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes."""
        if self.group is None:
            return tensor
        total = tensor.clone().contiguous()
        distributed.all_reduce(total, group=self.group)
        return total

    def agree(self, words: Sequence[str], device: torch.device) -> bool:
        """Return whether all processes give the same words, in one order."""
        if self.group is None:
            return True
        number = int.from_bytes(sha256("\n".join(words).encode()).digest()[:7])
        ends = torch.tensor([number, -number], device=device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX, self.group)
        largest, smallest = map(int, ends.tolist())
        return largest == -smallest

    def averaged(self, tensor: Tensor) -> Tensor:
        """Return the mean over the processes."""
        return tensor if self.group is None else self.summed(tensor) / distributed.get_world_size(self.group)
