"""Cross-seed overlap: one for equal runs, minus one for opposite ones, near zero for independent ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

import feedalign as fa
from feedalign.errors import ArgumentError

SIZES = [20, 30, 10]


def states(n: int) -> list[dict[str, torch.Tensor]]:
    return [dict(fa.networks.MLP(SIZES, seed=seed).state_dict()) for seed in range(n)]


def learned(rule: Any, seed: int) -> nn.Module:
    """A wrapped network after one backward pass, so that the rule has gathered what it gathers."""
    net: nn.Module = rule(fa.networks.MLP([20, 30, 10, 10], seed=seed), seed=7)
    functional.cross_entropy(net(torch.ones(3, 20)), torch.arange(3)).backward()
    return net


def test_mean_over_pairs_by_layer_and_in_total() -> None:
    runs = states(4)
    measured = fa.cross_seed_overlap(runs)
    flat = [torch.cat([run["0.weight"].flatten(), run["2.weight"].flatten()]).double() for run in runs]
    pairs = [float(a @ b / a.norm() / b.norm()) for a, b in itertools.combinations(flat, 2)]
    assert measured.pairs.tolist() == pytest.approx(pairs, abs=1e-12)
    assert measured.total == pytest.approx(sum(pairs) / 6, abs=1e-12)
    first = [run["0.weight"].flatten().double() for run in runs]
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in itertools.combinations(first, 2)]
    assert measured.layers["0.weight"] == pytest.approx(sum(cosines) / 6, abs=1e-12)
    assert set(measured.layers) == {"0.weight", "2.weight"}


def test_equal_opposite_and_independent_runs() -> None:
    one, other = states(2)
    assert fa.cross_seed_overlap([one, {k: 3 * v for k, v in one.items()}]).total == pytest.approx(1.0, abs=1e-12)
    assert fa.cross_seed_overlap([one, {k: -v for k, v in one.items()}]).total == pytest.approx(-1.0, abs=1e-12)
    # Cosines of independent directions in 900 dimensions have standard deviation 1/30.
    assert abs(fa.cross_seed_overlap([one, other]).total) < 5 / math.sqrt(900)


class Holder(nn.Module):
    """Training loops keep the wrapped network as an attribute, and others beside it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def compiled(net: Any) -> Any:
    return torch.compile(net, backend="eager")  # it is never run


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "": lambda net: net,
    "_orig_mod.": compiled,
    "module.": nn.DataParallel,
    "net.": Holder,
    "net._orig_mod.": lambda net: Holder(compiled(net)),
    "_orig_mod.net.module.": lambda net: compiled(Holder(nn.DataParallel(net))),
}


@pytest.mark.parametrize(
    "rule", [fa.DFA, fa.FA, fa.SignSymmetry, fa.ConditionedDFA, fa.DirectKolenPollack, fa.Backprop]
)
@pytest.mark.parametrize("prefix", WRAPPERS)
def test_what_a_rule_keeps_beside_the_model_is_not_compared_under_any_prefix(rule: Any, prefix: str) -> None:
    nets = [learned(rule, seed) for seed in range(2)]
    bare = fa.cross_seed_overlap([net.get_submodule("model").state_dict() for net in nets])
    wrapped = [WRAPPERS[prefix](net) for net in nets]
    for runs in (wrapped, [net.state_dict() for net in wrapped]):
        measured = fa.cross_seed_overlap(runs)
        assert list(measured.layers) == [f"{prefix}model.{name}" for name in bare.layers]
        assert measured.total == pytest.approx(bare.total, abs=1e-12)


def test_layers_that_are_called_model_and_feedback_are_layers() -> None:
    runs = [
        nn.ModuleDict({"model": nn.Linear(4, 3), "feedback": nn.Linear(3, 2), "gathered": nn.Linear(2, 2)})
        for _ in range(2)
    ]
    names = {"model.weight", "feedback.weight", "gathered.weight"}
    assert set(fa.cross_seed_overlap(runs).layers) == names
    assert set(fa.cross_seed_overlap([run.state_dict() for run in runs]).layers) == names
    alone = [{"feedback.1": torch.ones(2, 2)}] * 2  # beside no model
    assert set(fa.cross_seed_overlap(alone).layers) == {"feedback.1"}


class Positions(nn.Module):
    """A layer with buffers of two axes, as models with fixed embeddings of positions have them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, 4, generator=generator))
        self.bias = nn.Parameter(torch.ones(3, 1, 4))  # of an ensemble
        self.register_buffer("table", torch.ones(9, 4))
        self.register_buffer("reach", torch.ones(9, 9, dtype=torch.bool))
        self.register_buffer("order", torch.ones(9, 9, dtype=torch.int64))


def test_of_modules_exactly_the_parameters_are_compared() -> None:
    runs = [Positions(seed) for seed in range(2)]
    assert set(fa.cross_seed_overlap(runs).layers) == {"weight"}
    assert set(fa.cross_seed_overlap([dict(run.named_parameters()) for run in runs]).layers) == {"weight"}


def test_of_a_state_buffers_cannot_be_told_from_weights_but_integers_and_biases_can() -> None:
    runs = [Positions(seed).state_dict() for seed in range(2)]
    assert set(fa.cross_seed_overlap(runs).layers) == {"weight", "table"}


def test_a_pruned_weight_counts_as_the_layer_uses_it() -> None:
    nets = [fa.networks.MLP(SIZES, seed=seed) for seed in range(2)]
    for net in nets:
        prune.random_unstructured(net.get_submodule("0"), "weight", amount=0.5)
        prune.l1_unstructured(net.get_submodule("2"), "bias", amount=0.5)
    used = [{"0.weight": net.get_submodule("0").weight, "2.weight": net.get_submodule("2").weight} for net in nets]
    expected = fa.cross_seed_overlap(used)
    for runs in (nets, [net.state_dict() for net in nets]):
        measured = fa.cross_seed_overlap(runs)
        assert measured.layers.keys() == {"0.weight", "2.weight"}
        assert measured.layers["0.weight"] == pytest.approx(expected.layers["0.weight"], abs=1e-12)
        assert measured.total == pytest.approx(expected.total, abs=1e-12)


def test_a_parameter_with_two_names_counts_once() -> None:
    def tied(seed: int) -> nn.Module:
        net = fa.networks.MLP([6, 6, 6], seed=seed)
        net.get_submodule("2").weight = net.get_submodule("0").weight
        return net

    assert set(fa.cross_seed_overlap([tied(0), tied(1)]).layers) == {"0.weight"}


def test_a_network_and_a_state_may_be_compared_whatever_the_default_device() -> None:
    one, other = (fa.networks.MLP(SIZES, seed=seed) for seed in range(2))
    expected = fa.cross_seed_overlap([one, other]).total
    with torch.device("meta"):
        assert fa.cross_seed_overlap([one, other.state_dict()]).total == expected


def test_weights_that_are_all_zero_have_no_angle() -> None:
    one = states(1)[0]
    assert math.isnan(fa.cross_seed_overlap([one, {k: 0 * v for k, v in one.items()}]).total)


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        (None, "states must be a sequence of networks or state_dicts, got None"),
        (nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), "states must be a sequence of networks or state_dicts"),
        (states(1)[0], "states must be a sequence of networks or state_dicts"),
        (states(1), "got 1 network or state_dict, expected at least two"),
        ([*states(1), None], r"states\[1\] must be a network or a state_dict, got None"),
        ([*states(1), torch.ones(2, 2)], r"states\[1\] must be a network or a state_dict"),
        (
            [{"state_dict": states(1)[0]}] * 2,
            r"states\[0\] holds a dict at 'state_dict', expected a state_dict of names",
        ),
        ([{0: torch.ones(2, 2)}] * 2, r"states\[0\] holds a Tensor at 0, expected a state_dict of names"),
        ([{}, {}], "run 0 holds no weight matrix"),
        ([nn.ReLU(), nn.ReLU()], "run 0 holds no weight matrix"),
        (
            [*states(1), fa.networks.MLP([20, 31, 10])],
            r"run 1 does not hold the weights of run 0: 0.weight, 2.weight; 0.weight has shape \[30, 20\] in run 0 and "
            r"\[31, 20\] in run 1",
        ),
        (
            [{"w": torch.ones(2, 3)}, {"w": torch.ones(3, 2)}],
            r"run 1 does not hold the weights of run 0: w; w has shape \[2, 3\] in run 0 and \[3, 2\] in run 1",
        ),
        ([nn.Sequential(*[nn.Linear(2, 2)] * 2), nn.Linear(2, 2)], r"0.weight has shape \[2, 2\] in run 0 and None"),
        ([{"w": torch.ones(2, 2, dtype=torch.complex64)}] * 2, "'w' in states.0. is complex; give its real"),
        ([{"w": torch.eye(2).to_sparse()}] * 2, "'w' in states.0. is sparse; give it with its zeros"),
        ([nn.Linear(2, 2, device="meta")] * 2, "'weight' in states.0. is on the meta device"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: Any, fault: str) -> None:
    with pytest.raises(ArgumentError, match=fault):
        fa.cross_seed_overlap(runs)


@pytest.mark.filterwarnings("ignore:.*quant:UserWarning")  # torch warns, once a process, that these functions will go
def test_a_quantized_weight_is_refused() -> None:
    weight = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    with pytest.raises(ArgumentError, match=r"'w' in states\[0\] is quantized; give it as numbers"):
        fa.cross_seed_overlap([{"w": weight}] * 2)


def test_extra_state_is_no_weight() -> None:
    runs: list[dict[str, Any]] = [{**state, "0._extra_state": {"anything": 1}} for state in states(2)]
    assert fa.cross_seed_overlap(runs).total == fa.cross_seed_overlap(states(2)).total


@pytest.mark.parametrize(("fixed", "low", "high"), [(True, 0.5, 1.0), (False, -0.05, 0.05)], ids=["fixed", "fresh"])
def test_a_fixed_bias_in_backprops_updates_makes_runs_overlap_without_any_feedback(
    fixed: bool, low: float, high: float
) -> None:
    """Gradients of backprop, each with a vector of its own length added: one fixed vector, or fresh noise."""
    x = torch.randn(200, 20, generator=torch.Generator().manual_seed(0))
    y = x[:, :10].argmax(1)
    ends = []
    for seed in range(3):
        model = fa.networks.MLP(SIZES, seed=seed, bias=False)
        draws = torch.Generator().manual_seed(1000 + (0 if fixed else seed))
        biases = [torch.randn(weight.shape, generator=draws) for weight in model.parameters()]
        for _ in range(200):
            model.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            for weight, bias in zip(model.parameters(), biases, strict=True):
                assert weight.grad is not None
                if not fixed:
                    bias = torch.randn(weight.shape, generator=draws)
                with torch.no_grad():
                    weight.sub_(0.2 * (weight.grad + bias * weight.grad.norm() / bias.norm()))
        ends.append(dict(model.state_dict()))
    assert low < fa.cross_seed_overlap(ends).layers["0.weight"] < high
