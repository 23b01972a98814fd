"""validate: each kind of problem by its name and remedy, many of them at once, and nothing where nothing is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.parts import X, chain, found, parts
from tests.cases.small import hooks_on
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedalignError, PointsError


def test_a_clean_model_is_true_and_says_so() -> None:
    report = fa.validate(parts(chain), ("a", "gate"), X)
    assert report
    assert report.ok
    assert report.problems == ()
    assert str(report) == "no problems: 6 parameters learn with 2 points (a, gate)"
    assert fa.validate(fa.networks.MLP([4, 6, 3]), "auto", X).points == ("1",)


def test_unknown_and_repeated_names() -> None:
    problems = found(parts(chain), ("gates", "a", "a", "nowhere", ""))
    assert problems[0] == ("a", "is given twice", "name each point once")
    assert problems[1] == ("gates", "is no module of the model", "did you mean 'gate'?")
    assert problems[2] == ("nowhere", "is no module of the model", "choose from: a, b, gate, readout")
    assert [name for name, *_ in problems[3:]] == [""]


def test_points_and_parameters_that_never_run() -> None:
    problems = found(parts(lambda m, x: m.readout(m.gate(m.a(x)))), ("gate", "b"))
    assert [(name, problem) for name, problem, _ in problems] == [
        ("b", "never ran in a forward pass"),
        ("b.weight", "no feedback reaches this parameter: its module never ran in a forward pass"),
        ("b.bias", "no feedback reaches this parameter: its module never ran in a forward pass"),
    ]


def test_parameters_whose_result_is_dropped() -> None:
    def run(m: Any, x: Tensor) -> Any:
        h = m.a(x)
        m.b(h)
        return m.readout(m.gate(h))

    problems = found(parts(run), ("gate",))
    assert [name for name, *_ in problems] == ["b.weight", "b.bias"]
    assert "goes into no point and not into the output" in problems[0][1]
    assert "requires_grad_(False)" in problems[0][2]


def test_parameters_below_a_detached_tensor_and_frozen_ones() -> None:
    model = parts(lambda m, x: m.readout(m.gate(m.b(m.a(x).detach()))))
    assert [name for name, *_ in found(model, ("gate",))] == ["a.weight", "a.bias"]
    model.a.requires_grad_(False)
    assert found(model, ("gate",)) == []


def test_a_point_without_gradient_is_seen_by_its_parameters() -> None:
    def run(m: Any, x: Tensor) -> Any:
        with torch.no_grad():
            h = m.a(x)
        return m.readout(m.gate(m.b(h)))

    assert [name for name, *_ in found(parts(run), ("a", "gate"))] == ["a.weight", "a.bias"]


@pytest.mark.parametrize(
    ("after", "culprit"),
    [
        (nn.ReLU(inplace=True), "'after', a ReLU"),
        (nn.Sequential(nn.ReLU(inplace=True)), "'after.0', a ReLU"),
        (nn.Dropout(0.5, inplace=True), "'after', a Dropout"),
    ],
)
def test_a_module_that_works_in_place_on_a_point(after: nn.Module, culprit: str) -> None:
    model = parts(lambda m, x: m.readout(m.after(m.gate(m.a(x)))), after=after)
    model.b = nn.Identity()
    ((name, problem, remedy),) = found(model, ("gate",))
    assert name == "gate"
    assert f"worked on in place by {culprit}, while" in problem
    assert "inplace=False" in remedy
    # It is what would fail in training, tanh's gradient being made of its output.
    net = fa.DFA(model, points=("gate",))
    loss = net(X).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_operation_in_place_between_modules() -> None:
    def added(m: Any, x: Tensor) -> Any:
        h = m.gate(m.a(x))
        h += 1
        return m.readout(h)

    model = parts(added)
    model.b = nn.Identity()
    assert "by an operation that runs before 'readout'" in found(model, ("gate",))[0][1]

    def at_the_end(m: Any, x: Tensor) -> Any:
        h = m.gate(m.a(x))
        out = m.readout(h)
        h += 1
        return out

    model.run = at_the_end
    assert "by an operation in the forward of the Parts itself" in found(model, ("gate",))[0][1]


def test_a_point_that_itself_works_in_place_is_fine() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    assert fa.validate(model, "auto", X)


def test_tied_weights() -> None:
    tied = parts(lambda m, x: m.readout(m.gate(m.c(m.gate(m.b(m.a(x)))))), c=nn.Linear(6, 6))
    tied.c.weight = tied.b.weight
    assert found(tied, ("b", "c")) == [
        (
            "b.weight",
            "this parameter (also c.weight) is used in 2 blocks, which end at 'b' and at 'c': its gradient is a sum of "
            "what different feedback says",
            "give each block a parameter of its own, or choose points such that all its uses lie in one block",
        )
    ]
    assert found(tied, ("a",)) == []  # both uses in one block


def test_an_embedding_used_as_the_readout_is_tied() -> None:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Embedding(7, 6), nn.Linear(6, 6)

        def forward(self, tokens: Tensor) -> Tensor:
            return functional.linear(self.mix(self.embed(tokens)), self.embed.weight)

    ((name, problem, _),) = found(Language(), ("mix",), torch.tensor([[1, 2, 3]]))
    assert name == "embed.weight"
    assert "used in 2 blocks, which end at 'mix' and at the output" in problem


def test_a_module_that_runs_in_two_blocks_is_tied_a_cell_that_runs_as_a_point_is_not() -> None:
    twice = parts(lambda m, x: m.readout(m.b(m.gate(m.b(m.a(x))))))
    assert [name for name, *_ in found(twice, ("gate",))] == ["b.weight", "b.bias"]
    assert found(twice, ("b",)) == []


def test_a_point_that_gives_no_tensor() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"h": x, "n": x.argmax(-1)}

    model = parts(lambda m, x: m.readout(m.b(m.named(m.a(x))["h"])), named=Named())
    ((name, problem, remedy),) = found(model, ("named",))
    assert (name, problem) == (
        "named", "gives a dict, expected one floating-point Tensor, or a tuple whose first entry is the activation"
    )  # fmt: skip
    assert "nn.Identity" in remedy
    with pytest.raises(FeedalignError, match="point 'named' gives a dict"):
        fa.DFA(model, points=("named",))(X)


def test_a_point_with_other_batch_axes_or_of_two_widths() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Flatten(0), nn.Unflatten(0, (2, 6)), nn.Linear(6, 3))
    ((name, problem, _),) = found(model, ("1",))
    assert (name, problem) == ("1", "has shape (12,), but the output has the batch axes (2,)")
    shared = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 6), shared, nn.Linear(6, 5), shared, nn.Linear(5, 3))
    ((name, problem, _),) = found(model, ("1",))
    assert (name, problem) == ("1", "has 5 and 6 features in one forward pass")


def test_points_from_which_nothing_reaches_the_output() -> None:
    def run(m: Any, x: Tensor) -> Any:
        h = m.a(x)
        m.gate(m.b(h))
        return m.readout(h)

    problems = found(parts(run), ("a", "b", "gate"))
    assert [name for name, *_ in problems] == ["b", "gate"]
    assert "of which nothing reaches the output" in problems[0][1]


def test_a_readout_below_the_last_point() -> None:
    ((name, problem, remedy),) = found(parts(chain), ("gate", "readout"))
    assert (name, problem) == (
        "output", "carries no gradient: no trainable parameter lies after the last feedback point"
    )  # fmt: skip
    assert remedy.startswith("choose points before the readout")
    model = parts(chain)
    model.readout.requires_grad_(False)
    assert found(model, ("gate",)) == []


def test_an_output_without_an_entry_chosen() -> None:
    model = parts(lambda m, x: (chain(m, x), {"n": 1}))
    ((name, problem, remedy),) = found(model, ("gate",))
    assert (name, problem) == ("output", "must be a floating-point Tensor [*batch, outputs], got tuple")
    assert remedy == "output= says which entry carries the error, choose from: 0, 1"
    assert found(model, ("gate",), output=0) == []


def test_everything_at_once() -> None:
    def run(m: Any, x: Tensor) -> Any:
        h = m.a(x)
        h.relu_()
        h = m.gate(m.b(h))
        m.probe(h)
        return {"logits": m.readout(m.c(h))}

    model = parts(run, c=nn.Linear(6, 6), spare=nn.Linear(2, 2), probe=nn.Linear(6, 1))
    model.c.weight = model.b.weight
    report = fa.validate(model, ("a", "gate", "spare", "probe", "gat"), X)
    assert [name for name, *_ in report.problems] == [
        "gat", "a", "spare", "output", "probe", "b.weight", "spare.weight", "spare.bias"
    ]  # fmt: skip
    assert not report
    lines = str(report).splitlines()
    assert lines[0] == "8 problems with 5 points (a, gate, spare, probe, gat)"
    assert lines[1:3] == ["gat: is no module of the model", "    → did you mean 'gate'?"]
    assert len(lines) == 17


def test_nothing_is_left_behind() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 3)
    )
    model[1].eval()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert fa.validate(model, ("3",), torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert hooks_on(model) == []
    assert all(p.grad is None for p in model.parameters())


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert fa.validate(parts(chain), ("gate",), X)


def test_what_is_refused() -> None:
    model = parts(chain)
    with pytest.raises(PointsError, match="already wrapped in DFA"):
        fa.validate(fa.DFA(model, points=("gate",)), ("gate",), X)
    with pytest.raises(PointsError, match=r"can read nn\.Sequential"):
        fa.validate(model, "auto", X)
    with pytest.raises(PointsError, match="points is empty"):
        fa.validate(model, (), X)
    with pytest.raises(ArgumentError, match="batch_dims must be a whole number of at least 1, got 0"):
        fa.validate(model, ("gate",), X, batch_dims=0)
