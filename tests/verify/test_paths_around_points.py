"""validate tells a path that leads to the output around a point, and no skip connection whose sum is a point."""

from __future__ import annotations

from typing import Any

import torch
from tests.cases.parts import X, found, parts
from torch import Tensor, nn

import feedalign as fa


def branching(end: Any) -> Any:
    """The stem goes to both points and, past them, to the output; it is used once."""

    def run(m: Any, x: Tensor) -> Any:
        h = m.a(x)
        return m.readout(end(m)(h + m.gate(h) + m.b(h)))

    return parts(run, whole=nn.Identity())


def test_a_path_around_points_is_told_and_is_no_tie() -> None:
    model = branching(lambda m: m.whole)
    ((name, problem, remedy),) = found(model, ("gate", "b"))
    assert name == "a.weight"
    assert problem == (
        "this parameter (also a.bias) gets the true gradient as well: from it a path leads to the output around "
        "'gate', 'b'"
    )
    assert "where the paths have come together" in remedy
    # It is so: the stem's gradient is not what the rule sends alone.
    net = fa.DFA(model, points=("gate", "b"), feedback=Nothing())
    net(X).sum().backward()
    assert model.a.weight.grad.any()


class Nothing:
    """A recipe of zeros."""

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(features, outputs)


def test_where_the_paths_come_together_in_a_point_nothing_goes_around() -> None:
    model = branching(lambda m: m.whole)
    for points in (("whole",), ("gate", "b", "whole"), ("a", "gate", "b")):
        assert found(model, points) == []
        net = fa.DFA(model, points=points, feedback=Nothing())
        net.zero_grad()
        net(X).sum().backward()
        assert not model.a.weight.grad.any()
        net.unwrap()


def test_the_joined_branches_of_a_block_are_told_by_the_branch_that_is_no_point() -> None:
    def run(m: Any, x: Tensor) -> Any:
        h = m.a(x)
        return m.readout(torch.cat([m.b(h)[:, :3].relu(), m.gate(m.c(h))], -1))

    model = parts(run, c=nn.Linear(6, 3))
    (problem,) = found(model, ("gate",))
    assert problem[0] == "a.weight"
    assert problem[1].endswith("around 'gate'")


def test_a_chain_of_residual_blocks_has_no_way_around_if_the_sums_are_points() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.inner(x)
            return out

    model = nn.Sequential(nn.Linear(4, 6), *(Block() for _ in range(3)), nn.Linear(6, 3))
    assert found(model, ("1", "2", "3")) == []
    branches = ("1.inner", "2.inner", "3.inner")
    ((name, problem, _),) = found(model, branches)
    assert name == "0.weight"
    assert problem.endswith("around '1.inner', '2.inner', '3.inner'")
    model[0].requires_grad_(False)  # then nothing that learns is below
    assert found(model, branches) == []
