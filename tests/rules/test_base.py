"""The wrapped model as a module: its feedback is saved, moved, cast and seeded, and leaves no trace when unwrapped."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError, PointsError

TRACES = {"forward", "feedalign_hook"}  # of a rule, on a module


def make(seed: int = 0) -> fa.DFA:
    return fa.DFA(fa.networks.MLP([4, 6, 5, 3], seed=7), seed=seed)


def convnet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


def test_feedback_is_drawn_at_once_where_the_model_begins_with_a_linear_layer() -> None:
    assert {name: tuple(F.shape) for name, F in make().feedback_matrices.items()} == {"1": (6, 3), "3": (5, 3)}


def test_elsewhere_it_is_drawn_from_an_example_or_at_the_first_pass_with_the_same_result() -> None:
    x = torch.zeros(2, 1, 4, 4)
    early, late = fa.DFA(convnet(), example_input=x), fa.DFA(convnet())
    with pytest.raises(PointsError, match="give example_input=, or run one forward pass"):
        _ = late.feedback_matrices
    late(x)
    assert torch.equal(early.feedback_matrices["2"], late.feedback_matrices["2"])


def test_feedback_is_in_the_state_never_among_the_parameters() -> None:
    net = make()
    assert {key for key in net.state_dict() if key.startswith("feedback.")} == {"feedback.1", "feedback.3"}
    assert {name for name, _ in net.named_parameters()} == {
        f"model.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")
    }
    before = net.feedback_matrices["1"].clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.5)
    functional.cross_entropy(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert torch.equal(net.feedback_matrices["1"], before)


@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_the_state_restores_the_feedback_of_another_seed_drawn_or_not(model: str) -> None:
    """A convnet has not drawn its feedback when the state is loaded; it takes the saved one, and keeps it."""
    x = torch.randn(2, 4) if model == "mlp" else torch.randn(2, 1, 4, 4)
    one, other = (
        (make(0), make(1))
        if model == "mlp"
        else (fa.DFA(convnet(), seed=0, example_input=x), fa.DFA(convnet(), seed=1))
    )
    other.load_state_dict(one.state_dict())
    y = torch.tensor([0, 1])
    for net in (one, other):
        functional.cross_entropy(net(x), y).backward()
    for name, matrix in one.feedback_matrices.items():
        assert torch.equal(other.feedback_matrices[name], matrix)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_a_loaded_matrix_of_another_shape_is_refused_at_the_first_pass() -> None:
    net = fa.DFA(convnet())
    net.load_state_dict(
        {**fa.DFA(convnet(), example_input=torch.zeros(1, 1, 4, 4)).state_dict(), "feedback.2": torch.zeros(9, 3)}
    )
    with pytest.raises(FeedbackShapeError, match=r"of .2. has shape \(9, 3\), expected \(8, 3\), features by outputs"):
        net(torch.zeros(2, 1, 4, 4))


def test_nested_names_survive_in_the_state() -> None:
    model = nn.ModuleDict({"a/b": nn.Sequential(nn.Linear(4, 6), nn.Tanh()), "c": nn.Linear(6, 3)})
    net = fa.DFA(Chain(model), points=("layers.a/b.1",))
    assert list(net.feedback_matrices) == ["layers.a/b.1"]
    assert r"feedback.layers/a\b/1" in net.state_dict()
    net(torch.randn(2, 4)).sum().backward()


def test_a_state_with_other_points_is_refused() -> None:
    state = fa.DFA(fa.networks.MLP([4, 6, 5, 3]), points=("1", "3")).state_dict()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fa.DFA(fa.networks.MLP([4, 6, 5, 3]), points=("1",)).load_state_dict(state)


class Chain(nn.Module):
    def __init__(self, layers: nn.ModuleDict) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x


def test_feedback_is_cast_and_moved_with_the_model() -> None:
    net = make().double()
    assert net.feedback_matrices["1"].dtype == torch.float64
    assert make().to("meta").feedback_matrices["1"].device.type == "meta"
    assert fa.DFA(fa.networks.MLP([4, 6, 3]).double()).feedback_matrices["1"].dtype == torch.float64


def test_same_seed_same_feedback_other_seed_other_and_zero_is_a_seed() -> None:
    assert torch.equal(make(0).feedback_matrices["1"], make(0).feedback_matrices["1"])
    assert not torch.equal(make(0).feedback_matrices["1"], make(1).feedback_matrices["1"])


def test_nothing_touches_the_global_generator() -> None:
    state = torch.get_rng_state()
    net = make()
    functional.cross_entropy(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    fa.gradient_alignment(net, functional.cross_entropy, torch.ones(2, 4), torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), state)


def test_tracing_leaves_modes_and_batch_statistics_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    model[1].eval()
    state = copy.deepcopy(model.state_dict())
    fa.DFA(model, example_input=torch.randn(2, 1, 4, 4))
    assert [module.training for module in model] == [True, False, True, True, True]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_unwrapping_gives_the_model_back_without_hooks() -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    assert fa.DFA(model).unwrap() is model
    for module in model.modules():
        assert not module._forward_hooks
        assert vars(module).keys().isdisjoint(TRACES)


def test_hooks_from_before_are_in_the_block_and_later_ones_behind_the_cut() -> None:
    model: Any = fa.networks.MLP([4, 6, 3], "relu")
    before, after = (nn.Parameter(torch.tensor(2.0)) for _ in range(2))
    model[1].register_forward_hook(lambda _module, _inputs, output: before * output)
    net = fa.DFA(model)
    model[1].register_forward_hook(lambda _module, _inputs, output: after * output)
    x, error = torch.randn(2, 4), torch.randn(2, 3)
    net(x).backward(error)
    activation = model[0](x).relu()
    signal = error @ net.feedback_matrices["1"].T
    torch.testing.assert_close(before.grad, (signal * activation).sum())
    torch.testing.assert_close(after.grad, (error @ model[2].weight * 2 * activation).sum())


@pytest.mark.parametrize("swapped", [False, True])
def test_two_rules_may_share_a_module_and_leave_it_in_any_order(swapped: bool) -> None:
    shared = nn.ReLU()
    first, second = (nn.Sequential(nn.Linear(4, 6), shared, nn.Linear(6, 3)) for _ in range(2))
    nets = [fa.DFA(first, seed=0), fa.DFA(second, seed=1)]
    x, error = torch.randn(5, 4), torch.randn(5, 3)
    if swapped:
        nets.reverse()
    nets[0].unwrap()
    nets[1](x).backward(error)
    bias: Any = nets[1].get_parameter("model.0.bias")
    signal = error @ nets[1].feedback_matrices["1"].T
    torch.testing.assert_close(bias.grad, (signal * (nets[1].get_submodule("model.0")(x) > 0)).sum(0))
    nets[1].unwrap()
    assert not shared._forward_hooks
    assert vars(shared).keys().isdisjoint(TRACES)


def test_a_forward_that_is_already_replaced_stays_so() -> None:
    model: Any = fa.networks.MLP([4, 6, 3], "relu")
    model[1].forward = functional.leaky_relu
    x, error = torch.randn(2, 4), torch.randn(2, 3)
    net = fa.DFA(model)
    net(x).backward(error)
    signal = error @ net.feedback_matrices["1"].T
    torch.testing.assert_close(model[0].bias.grad, (signal * torch.where(model[0](x) > 0, 1.0, 0.01)).sum(0))
    net.unwrap()
    assert model[1].forward is functional.leaky_relu


class Odd(nn.Module):
    """Its forward is no plain function; the innerun of it is no run of the point."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, h: Tensor, inside: bool = False) -> Tensor:
        layer, below = (self.inner, h) if inside else (self.outer, self.forward(h, inside=True))
        return torch.tanh(layer(below))


@pytest.mark.parametrize("module", [Odd, Nested])
def test_a_point_may_be_any_module(module: Any) -> None:
    net = fa.DFA(nn.Sequential(nn.Linear(4, 6), module(), nn.Linear(6, 3)), points=("1",))
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12


def test_a_shallow_copy_of_a_point_runs_its_own_weights() -> None:
    net = fa.DFA(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))
    twin = copy.copy(net.get_submodule("model.0"))
    twin._parameters = {name: nn.Parameter(torch.zeros_like(p)) for name, p in twin.named_parameters()}
    assert not twin(torch.randn(2, 4)).any()


@pytest.mark.parametrize("rule", [fa.DFA, fa.ReadoutOnly])
def test_a_pass_in_which_no_point_ran_is_refused(rule: Any) -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    net = rule(model)
    model[1] = nn.Tanh()
    with pytest.raises(PointsError, match=r"point .1. was not reached, since another module stands.*wrap it again"):
        net(torch.randn(2, 4))


@pytest.mark.parametrize("rule", [fa.DFA, fa.ConditionedDFA, fa.KolenPollack, fa.DirectKolenPollack])
def test_the_first_pass_may_be_in_inference_mode(rule: Any) -> None:
    net = rule(convnet(), feedback=fa.feedback.Gaussian() if rule is fa.KolenPollack else fa.feedback.Aligned())
    x, y = torch.randn(2, 1, 4, 4), torch.tensor([0, 1])
    with torch.inference_mode():
        net(torch.randn(2, 1, 4, 4))
    functional.cross_entropy(net(x), y).backward()
    assert not any(matrix.is_inference() for matrix in net.feedback_matrices.values())
    net.load_state_dict(net.state_dict())


def test_feedback_has_the_precision_of_the_first_parameter_that_has_one() -> None:
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)).double()
    model.register_parameter("counts", nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False))
    assert next(model.parameters()).dtype == torch.int8
    assert fa.DFA(model).feedback_matrices["1"].dtype == torch.float64


def test_the_bare_model_stays_what_it_was_while_wrapped() -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    functional.cross_entropy(model(x), y).backward()
    expected = model[0].weight.grad.clone()
    fa.DFA(model)
    model.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    assert torch.equal(model[0].weight.grad, expected)


def test_a_deep_copy_learns_by_itself() -> None:
    net = make()
    twin = copy.deepcopy(net)
    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    functional.cross_entropy(net(x), y).backward()
    assert all(p.grad is None for p in twin.parameters())
    functional.cross_entropy(twin(x), y).backward()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)
    assert all(vars(module).keys().isdisjoint(TRACES) for module in twin.unwrap().modules())
    net.zero_grad()
    functional.cross_entropy(net(x), y).backward()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_without_gradients_the_model_just_runs() -> None:
    net = make()
    with torch.no_grad():
        assert not net(torch.ones(2, 4)).requires_grad
    assert net(torch.ones(2, 4)).requires_grad


def test_an_error_inside_the_model_leaves_the_rule_usable() -> None:
    net = make()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        net(torch.ones(2, 9))
    net(torch.ones(2, 4)).sum().backward()


def test_a_change_of_width_says_to_wrap_again() -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    net = fa.DFA(model)
    model[0], model[2] = nn.Linear(4, 8), nn.Linear(8, 3)
    with pytest.raises(FeedbackShapeError, match=r"'1' has shape \(6, 3\), which does not fit the activation \(2, 8\)"):
        net(torch.ones(2, 4))


def test_half_precision_outputs_carry_the_error_in_the_feedbacks_precision() -> None:
    net = make()
    x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    functional.cross_entropy(net(x), y).backward()
    exact = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = functional.cross_entropy(net(x), y)
    loss.backward()
    for p, gradient in zip(net.parameters(), exact, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, gradient, rtol=0.05, atol=0.01)  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("recipe", ["gaussian", fa.feedback.Gaussian, torch.zeros(6, 3)])
def test_feedback_that_is_no_recipe_is_refused_at_once(recipe: Any) -> None:
    with pytest.raises(ArgumentError, match="is no recipe; give an instance such as feedalign"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=recipe)


def test_a_fault_in_a_recipe_is_not_hidden() -> None:
    class Faulty:
        def draw(self, features: int, outputs: int, generator: torch.Generator) -> torch.Tensor:
            raise ZeroDivisionError("the recipe's own")

    with pytest.raises(ZeroDivisionError, match="the recipe's own"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=Faulty())
