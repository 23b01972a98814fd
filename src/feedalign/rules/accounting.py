"""Every learning pass accounts for each of its points: reached, or rightly skipped, or an error names the point."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from feedalign.anatomy import leaves_below, problems, tensors_in
from feedalign.errors import PointsError
from feedalign.torch_private import is_compiled


def account_for(model: nn.Module, points: Mapping[str, nn.Module], reached: Collection[str], output: Any) -> None:
    """Raise PointsError unless a pass has reached every point, or has rightly skipped it.

    A point is rightly skipped where its module still stands in the model and has not run. A module that has run without
    its hooks is told by its parameters: the output is computed from them.

    Args:
        model: the bare model.
        points: the modules that the rule hooks, by name.
        reached: names of those whose hooks have run.
        output: of the pass.
    """
    skipped = [name for name in points if name not in reached]
    for name in skipped:
        if module_at(model, name) is not points[name]:
            raise PointsError(f"point {problems.replaced(name)}")
    if torch.compiler.is_compiling():  # no compiler sees the graph
        return
    elsewhere = {id(p) for name in points if name in reached for p in points[name].parameters()}
    own = {name: [p for p in points[name].parameters() if id(p) not in elsewhere] for name in skipped}
    used = leaves_below(tensors_in(output), [parameter for parameters in own.values() for parameter in parameters])
    for name, parameters in own.items():
        if any(id(parameter) in used for parameter in parameters):
            raise PointsError(f"point {problems.ran_unseen(name)}")


def forget_compiled_code(model: nn.Module) -> None:
    """Let torch compile anew what was compiled of a model before: that code would not run the hooks set since."""
    if any(map(is_compiled, model.modules())):
        torch.compiler.reset()


def module_at(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module of this name; None if there is none."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def check_recording(name: str) -> None:
    """Raise PointsError if a point runs while gradients are off: no feedback could reach what lies below the point."""
    if not torch.is_grad_enabled():
        raise PointsError(
            f"point {name!r} ran without gradients, in torch.no_grad() or in a checkpoint with use_reentrant=True, so "
            "no feedback would reach what lies below it; checkpoint with use_reentrant=False, or choose points outside"
        )
