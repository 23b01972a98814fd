"""The private names of torch that feedalign uses. Each has its reason here, and stands nowhere else.

Tested with torch 2.7 to 2.13.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules import module as every_module
from torch.nn.parallel import DistributedDataParallel


def backward_pass() -> int:
    """Return the number of the backward pass that this thread is running, and -1 outside of one.

    Why: activation checkpointing runs parts of the forward pass a second time within a backward pass. The rule must cut
    the graph there as it did the first time. And a loss that passes by the rule is told by what the same backward pass
    has run before. No public function tells whether a backward pass is running.
    """
    return torch._C._current_graph_task_id()


def data_parallel_group() -> distributed.ProcessGroup | None:
    """Return the process group of the `DistributedDataParallel` whose forward pass is running; None outside of one.

    Why: feedback must be the same in all processes that train one model together, and only in those. A module inside of
    `DistributedDataParallel` has no public way to the wrapper around it.
    """
    running = DistributedDataParallel._active_ddp_module
    return None if running is None else running.process_group


def backward_hooks(module: nn.Module) -> tuple[list[Any], list[Any], list[Any]]:
    """Return a module's full backward hooks, its backward pre-hooks, and its backward hooks of the deprecated kind.

    Hooks that torch calls for every module count as well.

    Why: torch calls a module's backward hooks where the gradient passes what the call of the module returned. A direct
    rule cuts the graph inside of that call, so the rule itself must see to the hooks. No public function tells which
    hooks a module has.
    """
    full, deprecated = module._get_backward_hooks()
    return full, module._get_backward_pre_hooks(), deprecated


def any_backward_hooks(modules: Iterable[nn.Module]) -> bool:
    """Return whether torch calls backward hooks of any kind for one of these modules.

    Why: as for `backward_hooks`. It is asked in every pass, so it makes no lists.
    """
    if every_module._global_backward_hooks or every_module._global_backward_pre_hooks:
        return True
    return any(module._backward_hooks or module._backward_pre_hooks for module in modules)


def any_forward_hooks(modules: Iterable[nn.Module]) -> bool:
    """Return whether a forward hook was set on one of these modules, or for every module.

    Why: torch's own modules compute no loss, but a hook on them may keep one, and the rule must refuse such a loss. No
    public function tells which hooks a module has.
    """
    return bool(every_module._global_forward_hooks) or any(module._forward_hooks for module in modules)


def has_own_backward_hooks(module: nn.Module) -> bool:
    """Return whether a backward hook of any kind was set on this module itself.

    Why: where the rule cannot call the hooks of a module, it must say so, but not for hooks that were set for every
    module. No public function tells which hooks a module has.
    """
    return bool(module._backward_hooks or module._backward_pre_hooks)


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module was compiled, by `module.compile()` or by `torch.compile(module)`.

    Why: compiled code does not run hooks that are set later, so it must be compiled again once a rule has set its own.
    No public function tells whether a module was compiled.
    """
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
