"""The private names of torch that feedalign uses. Each has its reason here, and stands nowhere else.

Tested with torch 2.7 to 2.13.
"""

from __future__ import annotations

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel


def backward_pass() -> int:
    """Return the number of the backward pass that this thread is running, and -1 outside of one.

    Why: activation checkpointing runs parts of the forward pass a second time within a backward pass. The rule must cut
    the graph there as it did the first time. No public function tells whether a backward pass is running.
    """
    return torch._C._current_graph_task_id()


def data_parallel_group() -> distributed.ProcessGroup | None:
    """Return the process group of the `DistributedDataParallel` whose forward pass is running; None outside of one.

    Why: feedback must be the same in all processes that train one model together, and only in those. A module inside of
    `DistributedDataParallel` has no public way to the wrapper around it.
    """
    running = DistributedDataParallel._active_ddp_module
    return None if running is None else running.process_group
