"""Every learning pass accounts for each of its points: reached, or rightly skipped, or an error names the point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from feedalign.anatomy import leaves_below, problems, tensors_in
from feedalign.errors import ArgumentError, PointsError
from feedalign.rules.distributed import Processes
from feedalign.torch_private import is_compiled

if TYPE_CHECKING:
    from feedalign.rules.wrapped import Wrapped

# Before torch 2.12 code that is compiled is told that it is exported (pytorch issue 176347). So there nothing tells
# `torch.export.export(strict=True)` from `torch.compile`.
EXPORT_IS_KNOWN = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12)


def account_for(net: Wrapped, reached: Sequence[str], output: Any) -> None:
    """Raise PointsError unless a learning pass has reached every point, or has rightly skipped it.

    `reached` has the names of the points whose hooks have run, in order; `output` is that of the pass.
    """
    if net.unwrapped:
        raise PointsError(
            "the model has been unwrapped, so no feedback reaches it and it would learn by backprop; wrap it again"
        )
    if tuple(reached) != net.points and (skipped := [name for name in net.points if name not in reached]):
        _check_skipped(net, skipped, output)
    if net.learns_feedback and not torch.compiler.is_compiling():
        _check_processes(Processes.of_this_pass(net.shards), reached, next(net.feedback.buffers()).device)


def _check_skipped(net: Wrapped, skipped: Sequence[str], output: Any) -> None:
    """Raise PointsError unless points were rightly skipped: their modules stand in the model and have not run.

    A module that has run without its hooks is told by its parameters: the output is computed from them.
    """
    modules = {name: net.hooked[name] for name in net.points}
    now = dict(net.model.named_modules(remove_duplicate=False))
    for name in skipped:
        if now.get(name) is not modules[name]:
            raise PointsError(f"point {problems.replaced(name)}")
    if torch.compiler.is_compiling():  # no compiler sees the graph
        return
    # What another module holds as well, such as a tied weight, may be used by that one.
    inside = {module for name in skipped for module in modules[name].modules()}
    others = [module for module in net.model.modules() if module not in inside]
    elsewhere = {id(parameter) for module in others for parameter in module.parameters(recurse=False)}
    elsewhere |= {id(p) for name, module in modules.items() if name not in skipped for p in module.parameters()}
    own = {name: [p for p in modules[name].parameters() if id(p) not in elsewhere] for name in skipped}
    used = leaves_below(tensors_in(output), [parameter for parameters in own.values() for parameter in parameters])
    for name, parameters in own.items():
        if any(id(parameter) in used for parameter in parameters):
            raise PointsError(f"point {problems.ran_unseen(name)}")


def _check_processes(processes: Processes, reached: Sequence[str], device: torch.device) -> None:
    """Raise PointsError unless all processes have run the same points: they learn each matrix together.

    `device` is that of the message to the other processes.
    """
    if not processes.agree(reached, device):
        raise PointsError(
            "the processes that train this model together have not run the same points, and they learn each feedback "
            f"matrix together; this process has run {', '.join(map(repr, reached)) or 'none'}; let layer dropout draw "
            "the same layers in every process, from generators of one seed"
        )


def forget_compiled_code(model: nn.Module) -> None:
    """Let torch compile anew what was compiled of a model before: that code would not run the hooks set since."""
    if any(map(is_compiled, model.modules())):
        torch.compiler.reset()


def check_recording(name: str) -> None:
    """Raise PointsError if a point runs while gradients are off: no feedback could reach what lies below the point."""
    if not torch.is_grad_enabled():
        raise PointsError(
            f"point {name!r} ran without gradients, in torch.no_grad() or in a checkpoint with use_reentrant=True, so "
            "no feedback would reach what lies below it; checkpoint with use_reentrant=False, or choose points outside"
        )


def check_not_scripted(model: nn.Module) -> None:
    """Raise ArgumentError if the model was compiled by torch.jit."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ArgumentError(
            "the model was compiled by torch.jit, whose modules run no hooks, so no rule can reach them; wrap the "
            "model that was given to torch.jit.script or torch.jit.trace, and compile with torch.compile(net)"
        )


def check_not_recorded(net: Wrapped, inputs: Iterable[Any]) -> None:
    """Raise ArgumentError in a learning pass that torch records: the record would train without the rule."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    exported = (EXPORT_IS_KNOWN or not torch.compiler.is_dynamo_compiling()) and torch.compiler.is_exporting()
    if traced or exported or any(isinstance(x, fx.Proxy) for x in inputs):
        raise ArgumentError(
            f"torch.export, torch.jit.trace and torch.fx record what a model computes, and what {net.rule.__name__} "
            "sends is no part of the record, so a recorded model would not learn by the rule; for inference, record "
            "the bare model net.model, or record within torch.no_grad()"
        )


def transformed(net: Wrapped) -> ArgumentError:
    """Return the error that says that a rule knows no transforms of functions."""
    return ArgumentError(
        f"{net.rule.__name__} changes what loss.backward() and torch.autograd.grad compute, and torch.func.grad, vmap "
        "and their kin know nothing of that; take the gradient with torch.autograd.grad(loss, parameters), where "
        "torch.func.functional_call(net, parameters, inputs) gives the output, or for a batch of one sample at a time"
    )
