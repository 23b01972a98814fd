"""A model built on the meta device: its feedback is drawn once the model has memory, and is that of any other model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, FIXED_AND_LEARNED, assert_same, batch, gradients, network
from torch import Tensor, nn

import feedalign as fa
from feedalign.errors import PointsError

RULES = [*FIXED_AND_LEARNED, fa.SignSymmetry, fa.DRTP]


def on_meta(rule: Any) -> Any:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return rule(model, seed=3)


def filled(net: Any, *, inside: nn.Module | None = None) -> Any:
    """Give the net memory that holds nonsense, and the weights of `network`."""
    (inside or net).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            tensor.fill_(1e9)
        net.model.load_state_dict(network().state_dict())
    return net


def kept(net: Any) -> dict[str, Tensor]:
    """Return all that a rule keeps beside the model."""
    return {name: value.clone() for name, value in net.state_dict().items() if not name.startswith("model.")}


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_it_learns_as_a_model_that_was_never_on_meta(rule: Any, outside: bool) -> None:
    """Also where the memory came by way of a module around the net."""
    net = on_meta(rule)
    filled(net, inside=nn.ModuleList([net]) if outside else None)
    twin = rule(network(), seed=3)
    assert_same(gradients(net, *batch()), gradients(twin, *batch()), **EXACT)
    assert_same(kept(net), kept(twin), **EXACT)


@pytest.mark.parametrize("rule", RULES)
def test_before_any_pass_the_state_holds_what_was_drawn(rule: Any) -> None:
    net = filled(on_meta(rule))
    assert_same(kept(copy.deepcopy(net)), kept(rule(network(), seed=3)))
    assert_same(kept(net), kept(rule(network(), seed=3)))


@pytest.mark.parametrize("rule", RULES)
def test_a_state_that_is_loaded_is_not_drawn_over(rule: Any) -> None:
    trained = rule(network(), seed=4)
    gradients(trained, *batch())
    net = filled(on_meta(rule))
    net.load_state_dict(trained.state_dict())
    net(batch()[0])
    assert_same(kept(net), kept(trained))


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")  # torch's, about this very thing
def test_a_state_that_is_loaded_onto_meta_is_no_state() -> None:
    net = on_meta(fa.DFA)
    net.load_state_dict(fa.DFA(network(), seed=4).state_dict())
    filled(net)
    assert_same(kept(net), kept(fa.DFA(network(), seed=3)))


def test_emptied_after_it_was_drawn_it_is_drawn_anew() -> None:
    net = fa.DFA(network(), seed=3).to("meta")
    assert_same(kept(filled(net)), kept(fa.DFA(network(), seed=3)))


@pytest.mark.parametrize("rule", RULES)
def test_reset_feedback_forgets_what_was_learned(rule: Any) -> None:
    net = rule(network(), seed=3)
    expected = kept(net)
    gradients(net, *batch())
    if net.learns_feedback or rule is fa.ConditionedDFA:
        assert any(not torch.equal(value, expected[name]) for name, value in kept(net).items())
    net.reset_feedback()
    assert_same(kept(net), expected)


def test_batchwise_magnitudes_begin_again() -> None:
    net = fa.SignSymmetry(network(), magnitude="batchwise")
    first = gradients(net, *batch())
    assert not torch.equal(gradients(net, *batch())["0.weight"], first["0.weight"])
    net.reset_feedback()
    assert_same(gradients(net, *batch()), first)


def test_a_recipe_that_looks_at_data_draws_at_the_next_pass() -> None:
    x, _ = batch()
    net: Any = fa.DFA(network(), feedback=fa.feedback.Aligned(), example_input=x)
    with torch.no_grad():
        net.model[4].weight.mul_(2)
    net.reset_feedback()
    with pytest.raises(PointsError, match="the feedback is not drawn yet"):
        net.reset_feedback()
    net(x)
    torch.testing.assert_close(net.feedback_matrices["3"], net.model[4].weight.detach().T, **EXACT)
