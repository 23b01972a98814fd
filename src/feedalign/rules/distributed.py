"""Feedback in several processes: the same in all of them, and learned from the batches of all of them.

`DistributedDataParallel` averages gradients, and at each forward pass it sends the buffers that it knew when it was
built. It does not know feedback that was drawn later, and learned feedback it would overwrite with what one process
learned.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, distributed, nn

from feedalign.torch_private import data_parallel_group


def reshard(model: nn.Module) -> None:
    """Shard what `fully_shard` has gathered for a forward pass without a backward pass.

    The root of a sharded model would otherwise stay whole, and an optimizer made then would not see its shards.
    """
    if distributed.is_available() and distributed.is_initialized():
        from torch.distributed.fsdp import FSDPModule  # loaded where it can matter: it takes long

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together; without a group it is this process alone.

    Attributes:
        group: their process group, or None.
    """

    group: distributed.ProcessGroup | None = None

    @classmethod
    def of_this_pass(cls) -> Processes:
        """Return the processes of the `DistributedDataParallel` whose forward pass is running."""
        return cls(data_parallel_group())

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

    def averaged(self, tensor: Tensor) -> Tensor:
        """Return the mean over the processes."""
        return tensor if self.group is None else self.summed(tensor) / distributed.get_world_size(self.group)
