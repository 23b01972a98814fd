"""Feedback in several processes: the same everywhere, and learned from the batches of all of them.

`DistributedDataParallel` averages gradients, and at each forward pass sends the buffers it knew when it was built.
Feedback drawn after that it does not know, and feedback that learns it would overwrite with what one process learned.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel


def group_of_pass() -> Any:
    """Return the process group of the `DistributedDataParallel` whose forward pass is running; None outside one."""
    running = DistributedDataParallel._active_ddp_module
    return None if running is None else running.process_group


def of_first(tensor: Tensor, group: Any) -> Tensor:
    """Return the tensor of the group's first process, in every process; without a group the tensor itself."""
    if group is None:
        return tensor
    tensor = tensor.contiguous()
    distributed.broadcast(tensor, distributed.get_global_rank(group, 0), group)
    return tensor


def summed(tensor: Tensor, group: Any) -> Tensor:
    """Return the sum over the group's processes; without a group the tensor itself."""
    if group is None:
        return tensor
    total = tensor.clone().contiguous()
    distributed.all_reduce(total, group=group)
    return total


def averaged(tensor: Tensor, group: Any) -> Tensor:
    """Return the mean over the group's processes; without a group the tensor itself."""
    return tensor if group is None else summed(tensor, group) / distributed.get_world_size(group)
