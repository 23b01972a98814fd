"""What trainers ask of a model: its signature, its attributes, and a state that safetensors takes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from tests.cases.heads import INSIDE, Causal, Classifier
from tests.cases.small import assert_same
from torch import Tensor, nn

import feedalign as fa


@pytest.mark.parametrize("rule", fa.rules.RULES.values())
def test_the_class_of_a_wrapped_model_has_the_signature_of_the_model(rule: Any) -> None:
    """Trainers look for labels in the signature of the class, for columns in that of the object."""
    options = {} if issubclass(rule, fa.rules.SequentialRule) else {"points": ("layers.0", "layers.1")}
    net = rule(Classifier(), **options)
    assert inspect.signature(net.forward) == inspect.signature(net.model.forward)
    assert inspect.signature(type(net).forward) == inspect.signature(Classifier.forward)
    assert isinstance(net, rule)
    assert net.rule is rule
    assert type(net).__name__ == rule.__name__
    assert type(net) is type(rule(Classifier(), **options))
    assert list(inspect.signature(rule.forward).parameters) == ["self", "args", "kwargs"]


def test_tied_weights_are_saved_under_both_names_and_share_no_memory() -> None:
    net: Any = fa.DFA(Causal(tied=True), ("blocks.0", "blocks.1"), error_at="head")
    net(**INSIDE["causal"].inputs)
    state: dict[str, Tensor] = net.state_dict()
    pointers = [value.untyped_storage().data_ptr() for value in state.values()]
    assert len(set(pointers)) == len(pointers)
    assert torch.equal(state["model.head.weight"], state["model.embed.weight"])
    other: Any = fa.DFA(Causal(tied=True), ("blocks.0", "blocks.1"), error_at="head", seed=1)
    other.load_state_dict(state)
    assert_same(other.state_dict(), state)
    assert other.model.head.weight is other.model.embed.weight
    Causal(tied=True).load_state_dict({n.removeprefix("model."): v for n, v in state.items() if "feedback" not in n})
    kept = net.state_dict(keep_vars=True)
    assert kept["model.head.weight"] is kept["model.embed.weight"] is net.model.head.weight


def test_within_another_module_as_well() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = fa.DFA(Causal(tied=True), ("blocks.0", "blocks.1"), error_at="head")

    state = Around().state_dict()
    assert state["net.model.head.weight"].data_ptr() != state["net.model.embed.weight"].data_ptr()
