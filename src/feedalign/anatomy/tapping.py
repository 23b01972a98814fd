"""Run a model, and see the Tensors at which the error is taken: in what the model returns, or inside of the pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from feedalign.anatomy import problems
from feedalign.anatomy.error_tap import ErrorTap
from feedalign.anatomy.problems import Problem
from feedalign.errors import OutputError, PointsError

See = Callable[[str, Tensor | Problem], Tensor | None]
INPUT = ".input"


class PlaceHooks:
    """The hook on one module at whose output, or input, the error is taken.

    Args:
        tap: where the error is taken.
        place: name of the module, with ".input" after it for the module's input.
        see: called as see(place, tensor) when the module runs, or with a `Problem` where there is no such Tensor. What
            `see` returns, unless None, goes on in the Tensor's place.
    """

    def __init__(self, tap: ErrorTap, place: str, see: See) -> None:
        self.tap, self.place, self.see = tap, place, see

    def before(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Hook before the module runs: look at its first input."""
        name = "" if args else next(iter(kwargs), "")
        found = self.tap.find_one(args[0] if args else kwargs.get(name), None)
        if isinstance(found, Problem):
            found = found._replace(name="first input", remedy="name a module whose first input is the Tensor")
        new = self.see(self.place, found)
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, name: new})

    def after(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Hook after the module has run: look at its output."""
        found = self.tap.find_one(output, self.tap.entries[0])
        new = self.see(self.place, found)
        return None if new is None or not isinstance(found, Tensor) else self.tap.put(output, (found,), (new,))


def module_of(model: nn.Module, place: str) -> tuple[nn.Module, bool]:
    """Return the module of a place, and whether the place is the module's input.

    A module whose own name ends in ".input" is meant as a module. PointsError if the model has no such module.
    """
    known = dict(model.named_modules(remove_duplicate=False))
    if place in known and place:
        return known[place], False
    name = place.removesuffix(INPUT)
    if name != place and name in known and name:
        return known[name], True
    raise PointsError(f"error_at {problems.unknown_point(name, model)}")


def hook_places(model: nn.Module, tap: ErrorTap, see: See) -> list[RemovableHandle]:
    """Set a hook on every module at which the error is taken; see `PlaceHooks`."""
    handles = []
    for place in tap.places:
        module, at_input = module_of(model, place)
        hooks = PlaceHooks(tap, place, see)
        handles.append(
            module.register_forward_pre_hook(hooks.before, with_kwargs=True)
            if at_input
            else module.register_forward_hook(hooks.after)
        )
    return handles


@contextmanager
def seeing_places(model: nn.Module, tap: ErrorTap, see: See) -> Iterator[None]:
    """Within this context `see` is called when a module runs at which the error is taken; see `PlaceHooks`."""
    with ExitStack() as handles:
        for handle in hook_places(model, tap, see):
            handles.enter_context(handle)
        yield


def tapped(
    model: nn.Module,
    tap: ErrorTap,
    run: Callable[[], Any],
    change: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    *,
    training: bool = True,
) -> tuple[Any, tuple[Tensor, ...]]:
    """Run a model and return its output and the Tensors at which the error is taken, in the order of the tap.

    Args:
        model: the bare model.
        tap: where the error is taken. OutputError if no Tensor is there, or a module runs twice or not at all.
        run: runs the model and returns its output.
        change: called with each Tensor; what it returns goes on in the Tensor's place, and is returned in its place.
        training: see `ErrorTap.of`.
    """
    if not tap.places:
        output = run()
        found = tap.of(output, training=training)
        new = tuple(map(change, found))
        same = all(after is before for after, before in zip(new, found, strict=True))
        return (output if same else tap.put(output, found, new)), new
    seen: dict[str, Tensor] = {}

    def see(place: str, tensor: Tensor | Problem) -> Tensor:
        seen[place] = change(checked_place(place, tensor, seen))
        return seen[place]

    with seeing_places(model, tap, see):
        output = run()
    check_all_ran(tap.places, seen)
    return output, tuple(seen[place] for place in tap.places)


def checked_place(place: str, tensor: Tensor | Problem, seen: Any) -> Tensor:
    """Return the Tensor at a place; OutputError if there is none, or the place was seen before in this pass."""
    if isinstance(tensor, Problem):
        raise OutputError(f"error_at {place!r}: the {tensor.words}")
    if place in seen:
        raise OutputError(f"error_at {problems.place_runs_twice(place)}")
    return tensor


def check_all_ran(places: Sequence[str], seen: Any) -> None:
    """Raise OutputError unless every place was seen in a pass."""
    for place in places:
        if place not in seen:
            raise OutputError(f"error_at {problems.place_never_ran(place)}")


def place_problems(model: nn.Module, places: Sequence[str], points: Sequence[str]) -> list[Problem]:
    """Return what is wrong with names alone: places that the model does not have, and points that run after one."""
    found = []
    known = dict(model.named_modules())
    for place in places:
        try:
            module, at_input = module_of(model, place)
        except PointsError:
            found.append(problems.unknown_point(place.removesuffix(INPUT), model))
            continue
        for point in (one for one in points if one in known):
            around = any(module is each for each in known[point].modules())
            within = at_input and any(known[point] is each for each in module.modules())
            if around or within:
                found.append(problems.above_the_place(point, place))
    return found
