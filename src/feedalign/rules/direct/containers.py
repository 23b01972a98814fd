"""Backward hooks of users on modules around points.

Where such a module ends with a point, the graph is cut inside of the module's call, and torch would never call the
hooks. They are called below the cut instead, with what the rule sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import BackwardHook, RemovableHandle

from feedalign.anatomy import names_above
from feedalign.errors import PointsError
from feedalign.rules.direct.hooks import CuttingPass, PointHooks
from feedalign.rules.slot import Hooks, Slot
from feedalign.torch_private import backward_hooks, has_own_backward_hooks


def around_points(model: nn.Module, points: Iterable[nn.Module]) -> dict[str, nn.Module]:
    """Return the modules that hold a point, by their first names; no points, and not the model itself."""
    of_points = set(points)
    every = dict(model.named_modules(remove_duplicate=False))
    above = {end for name, module in every.items() if module in of_points for end in names_above(name)}
    return {n: m for n, m in model.named_modules() if n in above - {""} and m not in of_points}


class ContainerHooks(Hooks):
    """The two hooks of one module around points."""

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return what goes on in the inputs' place, so that the gradient of the inputs is seen; None for the same."""
        running = self.slot.now
        if not isinstance(running, CuttingPass):
            return None
        if not any(backward_hooks(module)):
            return None
        running.entering(self.name, module)
        return running.watch(self.name, module, inputs)

    def after(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        """Let the pass see to the hooks, if the module ends with a point."""
        running = self.slot.now
        if isinstance(running, CuttingPass) and (hook := running.watched(self.name)) is not None:
            running.leaving(self.name, module, hook, output)


def hooks_for_users(
    slot: Slot, points: Mapping[str, nn.Module], around: Mapping[str, nn.Module]
) -> list[RemovableHandle]:
    """Set the hooks by which a pass calls the users' backward hooks, on points and on modules around points."""
    handles = [m.register_forward_pre_hook(PointHooks(slot, name).before) for name, m in points.items()]
    for name, module in around.items():
        hooks = ContainerHooks(slot, name)
        handles += [module.register_forward_pre_hook(hooks.before), module.register_forward_hook(hooks.after)]
    return handles


class Ends:
    """Where modules that have backward hooks may end, in one pass.

    Attributes:
        runs: of points within such modules, by number: the activation with its past, and the same without its past,
            which the point gave to what follows.
        begun: of the modules that are running now, the innermost last: how many runs of points there were before.
    """

    def __init__(self) -> None:
        self.runs: dict[int, tuple[Tensor, Tensor]] = {}
        self.begun: list[int] = []

    def of(self, name: str, module: nn.Module, hook: BackwardHook, output: Any) -> tuple[int, Tensor] | None:
        """Return the number of the run with which a module ends, and the activation whose gradient the hooks see.

        None where the module, which has just run, does not end with a point: torch calls the hooks if the output has a
        gradient. PointsError where nobody would call the hooks, although a point lies within the module.
        """
        first = self.begun.pop()
        inside = {i: run for i, run in self.runs.items() if i >= first}
        entries = output if isinstance(output, tuple) else (output,)
        tensors = [entry for entry in entries if isinstance(entry, Tensor) and entry.is_floating_point()]
        ending = [i for i, (_, given) in inside.items() if any(given is tensor for tensor in tensors)]
        learning = any(activation.requires_grad for activation, _ in inside.values())
        recorded = any(tensor.requires_grad for tensor in tensors)
        if not learning or not tensors or (recorded and not ending):
            return None
        full, early, _ = backward_hooks(module)
        if len(ending) == 1 and not recorded and (full or early):
            activation, given = inside[ending[0]]
            place = next(i for i, entry in enumerate(entries) if entry is given)
            seen = hook.setup_output_hook((*entries[:place], activation, *entries[place + 1 :]))[place]
            self.runs[ending[0]] = seen, given
            return ending[0], seen
        if has_own_backward_hooks(module):
            raise PointsError(
                f"module {name!r} has a backward hook that would not be called, or not with what is sent to the point "
                f"within the module, since the rule cuts the gradient there; take {name!r} itself as the point, or set "
                "the hook on the point, with register_full_backward_hook"
            )
        return None
