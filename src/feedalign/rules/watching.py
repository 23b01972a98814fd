"""A model watched through one forward pass: what ran, what was changed in place, and what reaches what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.rules import problems
from feedalign.rules.outputs import activation_in, mapped
from feedalign.rules.problems import Problem

Node = torch.autograd.graph.Node
Uses = set[tuple[int, Node | None]]  # the id of a parameter or other leaf, and what is computed from it there


@dataclass(eq=False)
class Cut:
    """One run of a point: the activation that ends the block below, and the leaf that begins the one above."""

    point: str
    activation: Tensor
    leaf: Tensor
    given: Tensor  # to what follows, a copy of the leaf, which may be worked on in place
    version: int
    spoiled: bool = False


class Watched:
    """A copy of the model whose graph is cut at the points, and which is watched as it runs."""

    def __init__(self, model: nn.Module, points: list[str]) -> None:
        self.model, self.points = model, points
        self.cuts: list[Cut] = []
        self.ran: set[str] = set()
        self.problems: list[Problem] = []

    def run(self, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Run the model, and note the problems that show as it runs."""
        for name, module in self.model.named_modules():
            module.register_forward_pre_hook(partial(self._before, name))
            module.register_forward_hook(partial(self._after, name))
        returned = self.model(*inputs, **keywords)
        self.problems += [problems.never_ran(name) for name in self.points if name not in self.ran]
        return returned

    def _before(self, name: str, _module: nn.Module, _inputs: Any) -> None:
        self._look_for_changes(f"an operation that runs before {name!r}")

    def _after(self, name: str, module: nn.Module, _inputs: Any, output: Any) -> Any:
        inside = any(True for _ in module.children())
        culprit = f"{name!r}, a {type(module).__name__}" if name else f"the {type(module).__name__} itself"
        self._look_for_changes(f"an operation in the forward of {culprit}" if inside else culprit)
        first_run = name not in self.ran
        self.ran.add(name)
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
        self.cuts.append(Cut(name, activation, leaf, given, given._version))
        return mapped(output, lambda tensor: given if tensor is activation else tensor.detach())

    def _look_for_changes(self, culprit: str) -> None:
        for cut in self.cuts:
            if not cut.spoiled and cut.given._version != cut.version:
                if not any(other.spoiled for other in self.cuts if other.point == cut.point):
                    self.problems.append(problems.in_place(cut.point, culprit))
                cut.spoiled = True


def uses(end: Tensor) -> Uses:
    """Return the leaves that a Tensor is computed from, each with every operation of its graph that takes it."""
    if end.grad_fn is None:
        return {(id(end), None)}
    found: Uses = set()
    seen, waiting = {end.grad_fn}, [end.grad_fn]
    while waiting:
        node = waiting.pop()
        for below, _ in node.next_functions:
            if below is None:
                continue
            if below.name() == "torch::autograd::AccumulateGrad":
                found.add((id(below.variable), node))  # type: ignore[attr-defined]  # of this one kind of node
            elif below not in seen:
                seen.add(below)
                waiting.append(below)
    return found
