"""Weights that a layer computes anew in every pass (pruning, norms, parametrizations) count as the layer uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, ROUNDING, batch, gradients, network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune

import feedalign as fa

SEQUENTIAL: list[Any] = [fa.FA, fa.SignSymmetry, fa.KolenPollack]


def pruned_twice(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "weight", amount=0.4)
    prune.l1_unstructured(layer, "weight", amount=0.3)
    prune.random_unstructured(layer, "bias", amount=0.5)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", amount=0.6),
    "pruned twice": pruned_twice,
    "weight norm": nn.utils.weight_norm,
    "spectral norm": nn.utils.spectral_norm,
    "parametrized weight norm": parametrizations.weight_norm,
    "parametrized spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}
# Torch advises the parametrization of the same name.
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")


def changed(way: str) -> Any:
    """Return a network whose second layer computes its weight anew."""
    model = network()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        WAYS[way](model[2])
    return model


def plain(model: Any) -> Any:
    """Return a network with the weights that the layers of another one use, as parameters."""
    twin = network()
    with torch.no_grad():
        model.eval()(batch()[0])  # computes them; in evaluation mode spectral norm estimates nothing new
        for i in (0, 2, 4):
            twin[i].weight.copy_(model[i].weight)
            twin[i].bias.copy_(model[i].bias)
    return twin


def after_steps(net: Any, steps: int = 2) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(steps):
        gradients(net, *batch(seed=step))
        optimizer.step()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", [fa.DFA, *SEQUENTIAL])
def test_alignment_is_that_of_the_weights_in_use(rule: Any, way: str) -> None:
    """Right after a step, too, when the layer has not run with its new weight yet."""
    net = rule(changed(way))
    after_steps(net)
    found = fa.weight_alignment(net)
    twin = rule(plain(net.model))
    twin.load_state_dict({**twin.state_dict(), **feedback(net)})
    expected = fa.weight_alignment(twin)
    assert found.layers == pytest.approx(expected.layers, abs=1e-9)
    assert found.total == pytest.approx(expected.total, abs=1e-9)


def feedback(net: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if name.startswith("feedback.")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", [fa.DFA, *SEQUENTIAL])
def test_every_gradient_is_the_reference(rule: Any, way: str) -> None:
    """Before training and after, when the layer holds a Tensor of its last pass."""
    net = rule(changed(way))
    for _ in range(2):
        assert fa.check_rule(net, cross_entropy, *batch()).worst < ROUNDING
        after_steps(net)


@pytest.mark.parametrize("rule", SEQUENTIAL)
def test_a_pruned_network_learns_as_one_with_zeros_that_stay(rule: Any) -> None:
    """Its gradients are those of the plain network where nothing is cut; so is what Kolen–Pollack learns."""
    model = changed("pruned")
    mask = model[2].weight_mask.clone()
    net, twin = rule(model), rule(plain(model))
    model.train()
    twin.load_state_dict({**twin.state_dict(), **feedback(net)})
    found, expected = gradients(net, *batch()), gradients(twin, *batch())
    torch.testing.assert_close(found["2.weight_orig"], mask * expected["2.weight"], **EXACT)
    for name in ("0.weight", "0.bias", "2.bias", "4.weight", "4.bias"):
        torch.testing.assert_close(found[name], expected[name], **EXACT)
    B, plain_B = net.feedback_matrices["2"], twin.feedback_matrices["2"]
    torch.testing.assert_close(B[mask.T != 0], plain_B[mask.T != 0], **EXACT)


def test_feedback_of_what_is_cut_off_only_decays() -> None:
    model = changed("pruned")
    net = fa.KolenPollack(model, lr=0.1, weight_decay=0.5)
    cut = model[2].weight_mask.T == 0
    before = net.feedback_matrices["2"][cut].clone()
    gradients(net, *batch())
    torch.testing.assert_close(net.feedback_matrices["2"][cut], 0.95 * before, **EXACT)


def test_sign_symmetry_sends_nothing_through_a_connection_that_is_cut_off() -> None:
    model = changed("pruned")
    weight, instead = fa.SignSymmetry(model).backward_weights()["2"]
    cut = model[2].weight_mask == 0
    assert not instead[cut].any()
    assert instead[~cut].all()
    assert torch.equal(weight == 0, cut)


@pytest.mark.parametrize("way", [name for name in WAYS if name != "pruned twice"])
@pytest.mark.parametrize("rule", SEQUENTIAL)
def test_a_layer_without_a_formula_runs_again_with_the_other_weight(rule: Any, way: str) -> None:
    """Padding in a circle has no formula here."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Conv1d(3, 2, 3, padding=1, padding_mode="circular"), nn.Tanh(),
        nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip
    WAYS[way](model[2])
    x = torch.randn(5, 1, 8, generator=torch.Generator().manual_seed(0))
    net = rule(model, example_input=x)
    assert "2" in net.feedback_matrices
    assert fa.check_rule(net, cross_entropy, x, torch.arange(5) % 3).worst < ROUNDING
    assert nn.utils.parametrize.is_parametrized(model[2]) == way.startswith(("param", "orth"))


def test_a_weight_that_a_hook_of_ones_own_computes_counts_as_the_last_pass_left_it() -> None:
    model = network()
    layer = model[2]
    layer.weight_raw = nn.Parameter(layer.weight.detach().clone())
    del layer.weight
    layer.weight = layer.weight_raw * 1.0
    layer.register_forward_pre_hook(lambda module, _inputs: setattr(module, "weight", 3 * module.weight_raw))
    net = fa.FA(model)
    net(batch()[0])
    torch.testing.assert_close(net.backward_weights()["2"][0], 3 * layer.weight_raw.detach(), **EXACT)
    assert fa.check_rule(net, cross_entropy, *batch()).worst < ROUNDING
