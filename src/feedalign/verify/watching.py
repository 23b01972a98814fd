"""A model watched through one forward pass: what ran, what was changed in place, and what reaches what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from feedalign.anatomy import (
    ErrorTap,
    Problem,
    activation_in,
    features_last,
    mapped,
    operations_below,
    problems,
    seeing_places,
)

Uses = set[tuple[int, Node | None]]  # the id of a parameter or other leaf, and what is computed from it there


@dataclass(eq=False)
class Cut:
    """One run of a point: the activation that ends the block below, and the leaf that begins the one above."""

    point: str
    activation: Tensor
    leaf: Tensor
    probe: Tensor  # its derivative needs what was given to the block above as it was then
    by_token: bool  # whether the last layer of the block puts its features on the last axis
    spoiled: bool = False

    @property
    def changed(self) -> bool:
        """Whether what was given to the block above has been changed in place since."""
        try:
            torch.autograd.grad(self.probe, self.leaf, torch.zeros_like(self.probe), retain_graph=True)
        except RuntimeError:  # autograd's own: a Tensor that the derivative needs has been modified in place
            return True
        return False


class Watched:
    """A copy of the model whose graph is cut at the points, and which is watched as it runs."""

    def __init__(self, model: nn.Module, points: list[str]) -> None:
        self.model, self.points = model, points
        self.cuts: list[Cut] = []
        self.ran: set[str] = set()
        self.modules = dict(model.named_modules())
        self.inside: list[tuple[str, Any]] = []  # modules with parameters since the last point, and their outputs
        self.problems: list[Problem] = []

    def run(
        self, tap: ErrorTap, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[Any, tuple[Tensor, ...] | Problem]:
        """Run the model, and note the problems that show as it runs.

        Returns:
            The output, and where the error is taken, or why it cannot be taken.
        """
        seen: dict[str, Tensor] = {}
        before: list[int] = []  # how many runs of points there were by then
        wrong: list[Problem] = []

        def see(place: str, found: Tensor | Problem) -> Tensor | None:
            if isinstance(found, Problem):
                wrong.append(found)
                return None
            if place in seen:
                wrong.append(problems.place_runs_twice(place))
            before.append(len(self.cuts))
            # An equal Tensor goes on, of which it can be seen whether anything is computed from it.
            if not found.requires_grad:
                found = found.detach().requires_grad_()
            seen[place] = found.view_as(found)
            return seen[place]

        with seeing_places(self.model, tap, see):
            for name, module in self.model.named_modules():
                module.register_forward_pre_hook(partial(self._before, name))
                module.register_forward_hook(partial(self._after, name))
            returned = self.model(*inputs, **keywords)
        self.problems += [problems.never_ran(name) for name in self.points if name not in self.ran]
        if not tap.places:
            return returned, tap.find(returned)
        late = dict.fromkeys(cut.point for cut in self.cuts[min(before, default=len(self.cuts)) :])
        self.problems += [problems.above_the_place(name, tap.places[0]) for name in late]
        wrong += [problems.place_never_ran(place) for place in tap.places if place not in seen and not wrong]
        return returned, wrong[0] if wrong else tuple(seen[place] for place in tap.places)

    def _before(self, name: str, _module: nn.Module, _inputs: Any) -> None:
        self._look_for_changes(f"an operation that runs before {name!r}")

    def _after(self, name: str, module: nn.Module, _inputs: Any, output: Any) -> Any:
        inside = any(True for _ in module.children())
        culprit = f"{name!r}, a {type(module).__name__}" if name else f"the {type(module).__name__} itself"
        self._look_for_changes(f"an operation in the forward of {culprit}" if inside else culprit)
        first_run = name not in self.ran
        self.ran.add(name)
        if any(True for _ in module.parameters(recurse=False)):
            self.inside.append((name, output))
        if name not in self.points:
            return None
        activation = activation_in(output)
        if activation is None:
            if first_run:
                self.problems.append(problems.no_tensor(name, output))
            return None
        with torch.enable_grad():  # the model may run a part of itself without
            leaf = activation.detach().requires_grad_()
            given = leaf.clone()
            by_token = features_last(self.inside, self.modules, activation)
            self.cuts.append(Cut(name, activation, leaf, given.flatten()[:1].square(), by_token))
        self.inside = []
        return mapped(output, lambda tensor: given if tensor is activation else tensor.detach(), objects=True)

    def _look_for_changes(self, culprit: str) -> None:
        for cut in self.cuts:
            if not cut.spoiled and cut.changed:
                if not any(other.spoiled for other in self.cuts if other.point == cut.point):
                    self.problems.append(problems.in_place(cut.point, culprit))
                cut.spoiled = True

    def uses(self, end: Tensor) -> Uses:
        """Return the leaves that a Tensor is computed from, each with every operation that takes the leaf."""
        if end.grad_fn is None:
            return {(id(end), None)}
        learning = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
        leaves = {get_gradient_edge(leaf).node: id(leaf) for leaf in (*learning, *(cut.leaf for cut in self.cuts))}
        return {
            (leaves[below], node)
            for node in operations_below([end])
            for below, _ in node.next_functions
            if below in leaves
        }
