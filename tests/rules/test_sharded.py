"""`fully_shard`: two processes with half a batch each are one process with the whole, for every rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cases.processes import pair
from tests.rules.sharded_processes import CASES, model, trained
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch without gloo"
)
States = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[States]:
    """Return what the two processes ended with, and what one process alone ended with, by case."""
    with (
        pair("tests.rules.sharded_processes", tmp_path_factory.mktemp("processes")) as saved,
        torch.random.fork_rng([]),
    ):
        alone = {case: trained(case, 0, 1) for case in CASES}
    return [*map(torch.load, saved), alone]


@pytest.mark.parametrize("case", CASES)
def test_two_sharded_processes_are_one_on_the_joined_batch(states: list[States], case: str) -> None:
    """Weights and feedback, whether the model was sharded before it was wrapped or after, as a whole or by block."""
    first, second, joined = (of_run[case] for of_run in states)
    assert first.keys() == joined.keys()
    for name, tensor in joined.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-9, atol=1e-11)
        assert torch.equal(second[name], first[name])


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Any]:
    """Return `fully_shard` over this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'init'}", rank=0, world_size=1)
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (1,))
        yield lambda module: fully_shard(module, mesh=mesh)
    finally:
        torch.distributed.destroy_process_group()


X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("rule", [fa.DFA, fa.FA, fa.KolenPollack])
def test_an_optimizer_made_before_the_first_pass_moves_every_shard(alone: Any, rule: Any) -> None:
    body = model()
    alone(body)
    net = rule(body, example_input=X)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = [parameter.full_tensor().clone() for parameter in net.parameters()]
    functional.cross_entropy(net(X), torch.arange(6) % 3).backward()
    optimizer.step()
    after = [parameter.full_tensor() for parameter in net.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_sharding_the_wrapped_net_itself_is_refused(alone: Any) -> None:
    net = fa.DFA(model())
    alone(net)
    with pytest.raises(ArgumentError, match=r"given the wrapped net.*call fully_shard\(net\.model\)"):
        net(X)


@pytest.mark.parametrize("rule", [fa.DFA, fa.FA, fa.KolenPollack])
def test_weights_are_measured_as_a_whole(alone: Any, rule: Any) -> None:
    plain, body = rule(model()), model()
    body.load_state_dict(plain.model.state_dict())
    net = rule(body)
    alone(body)
    assert fa.weight_alignment(net).layers == fa.weight_alignment(plain).layers
    if rule is fa.DFA:
        y = torch.arange(6) % 3
        for measured in (net, plain):
            functional.cross_entropy(measured(X), y).backward()
        found, expected = (fa.conditioning(each, functional.cross_entropy, X, y).layers for each in (net, plain))
        assert {name: layer.residual for name, layer in found.items()} == {
            name: layer.residual for name, layer in expected.items()
        }
        assert fa.alignability(net) == fa.alignability(plain)


def test_what_needs_gradients_or_copies_of_all_parameters_is_refused_and_the_advice_helps(alone: Any) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    body, y = model(), torch.arange(6) % 3
    net = fa.DFA(body, seed=1)
    alone(body)
    functional.cross_entropy(net(X), y).backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    measures: dict[str, Any] = {
        "gradient_alignment": partial(fa.gradient_alignment, at="parameters"),
        "check_rule": fa.check_rule,
        "descent": lambda *given: fa.alignment.descent(*given, lr=0.1),
    }
    for name, measure in measures.items():
        with pytest.raises(ArgumentError, match=f"{name}.* cannot be done with a model.*get_model_state_dict"):
            measure(net, functional.cross_entropy, X, y)
    with pytest.raises(ArgumentError, match="validate cannot be done with a model"):
        fa.validate(body, ("0",), X)
    copy = fa.DFA(model())
    copy.load_state_dict(get_model_state_dict(net, options=StateDictOptions(full_state_dict=True)))
    assert fa.weight_alignment(copy).layers == fa.weight_alignment(net).layers
    assert fa.check_rule(copy, functional.cross_entropy, X, y).worst < 1e-12


def test_recomputing_a_sharded_model_is_refused(alone: Any) -> None:
    body = model()
    alone(body)
    net = fa.DFA(body, recompute=True)
    for _ in range(2):
        with pytest.raises(ArgumentError, match=r"recompute=True with a model that fully_shard has sharded"):
            net(X)


def test_a_layer_without_a_written_out_backward_pass_may_be_sharded_alone(alone: Any) -> None:
    found = []
    for shard in (False, True):
        layers = nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular")
        body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 3)).double()
        with torch.no_grad():
            for parameter in body.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
        if shard:
            alone(body[2])
            alone(body)
        net = fa.FA(body)
        functional.cross_entropy(net(X[:, None]), torch.arange(6) % 3).backward()
        gradients: list[Any] = [parameter.grad for parameter in net.parameters()]
        found.append([gradient.full_tensor() if shard else gradient for gradient in gradients])
    for whole, sharded in zip(*found, strict=True):
        torch.testing.assert_close(sharded, whole)


LOSS_AND_BATCH = functional.cross_entropy, X, torch.arange(6) % 3
MEASURES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "preactivations": lambda net: fa.gradient_alignment(net, *LOSS_AND_BATCH).layers,
    "points": lambda net: fa.gradient_alignment(net, *LOSS_AND_BATCH, at="point").layers,
    "weights": lambda net: fa.weight_alignment(net).layers,
    "alignability": lambda net: {name: one.bound for name, one in fa.alignability(net).layers.items()},
    "conditioning": lambda net: {
        name: one.residual for name, one in fa.conditioning(net, *LOSS_AND_BATCH).layers.items()
    },
    "overlap": lambda net: fa.cross_seed_overlap([net, net]).layers,
    "monitor": lambda net: fa.AlignmentMonitor(net, *LOSS_AND_BATCH, conditioning=True).measure(0).scalars,
}
REFUSED: dict[str, Callable[[Any], object]] = {
    "gradient_alignment": lambda net: fa.gradient_alignment(net, *LOSS_AND_BATCH, at="parameters"),
    "descent": lambda net: fa.alignment.descent(net, *LOSS_AND_BATCH, lr=0.1),
    "check_rule": lambda net: fa.check_rule(net, *LOSS_AND_BATCH),
    "validate": lambda net: fa.validate(net.unwrap(), "auto", X),
}


def with_and_without_shards(alone: Any) -> tuple[Any, Any]:
    nets = []
    for shard in (True, False):
        torch.manual_seed(0)
        body = model()
        if shard:
            for block in body.children():
                alone(block)
            alone(body)
        nets.append(fa.DFA(body, seed=1, example_input=X))
    return nets[0], nets[1]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_finds_the_same_with_shards(alone: Any, measure: str) -> None:
    sharded, whole = with_and_without_shards(alone)
    assert MEASURES[measure](sharded) == pytest.approx(MEASURES[measure](whole), rel=1e-12)


@pytest.mark.parametrize("measure", REFUSED)
def test_a_measure_that_cannot_be_taken_of_shards_says_so(alone: Any, measure: str) -> None:
    sharded, _ = with_and_without_shards(alone)
    with pytest.raises(ArgumentError, match=rf"{measure}.*cannot be done with a model that fully_shard has sharded"):
        REFUSED[measure](sharded)
