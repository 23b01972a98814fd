"""What is held of a compact feedback matrix: how many numbers, how they are saved, and no F beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.compact import CASES, CLASSES, NAMES, Pooled, case, with_all_entries, wrapped
from tests.cases.small import EXACT, assert_same
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import feedalign as fa
from feedalign import feedback


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.ConditionedDFA, fa.DRTP])
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_the_state_is_what_is_stored_and_makes_the_round_trip(kind: str, recipe: Any, rule: Any) -> None:
    net, inputs, step = wrapped(rule, kind, recipe)
    step(net)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    model, points, _ = case(kind)
    for other in (rule(model, points, recipe, seed=9), rule(model, points, recipe, seed=9, example_input=inputs)):
        other.load_state_dict(state)
        assert_same(step(other), step(net), **EXACT)
        net.load_state_dict(state)
        other.load_state_dict(state)
        assert_same(other.state_dict(), state)


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack])
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_a_state_of_matrices_with_all_their_entries_still_loads(kind: str, recipe: Any, rule: Any, drawn: bool) -> None:
    """As versions before saved them; and a state of few numbers loads after that."""
    net, inputs, step = wrapped(rule, kind, recipe)
    state = net.state_dict()
    full = with_all_entries(net, rule, kind)
    model, points, _ = case(kind)
    other = rule(model, points, recipe, seed=9, **({"example_input": inputs} if drawn else {}))
    other.load_state_dict(full.state_dict())
    assert_same(step(other), step(full), **EXACT)
    assert_same(other.feedback_matrices, full.feedback_matrices, **EXACT)
    other.load_state_dict(state)
    assert_same(other.feedback_matrices, net.feedback_matrices, **EXACT)


def test_what_is_stored_is_as_small_as_predicted() -> None:
    def held(kind: str, recipe: Any) -> int:
        return sum(b.numel() for b in wrapped(fa.DFA, kind, recipe)[0].feedback.buffers())

    C = CLASSES
    assert held("images", feedback.Gaussian()) == (4 * 36 + 6 * 9) * C
    assert held("images", feedback.Channelwise()) == (4 + 6) * C
    assert held("images", feedback.Shared()) == 4 * 36 * C
    assert held("pooled", feedback.Tokenwise()) == (4 + 6) * C
    assert held("pooled", feedback.Tokenwise(feedback.Shared())) == 6 * C
    # A sign for each output.
    assert held("dense", feedback.Sketched(3)) == (8 + 5) * 3 + C
    assert held("dense", feedback.Sketched(3, feedback.Shared())) == 8 * 3 + C
    assert held("images", feedback.Sketched(3, feedback.Channelwise())) == (4 + 6) * 3 + C


def largest_memory(step: Any) -> int:
    """Return how many numbers in single precision the largest single request for memory was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    return int(max(event.self_cpu_memory_usage for event in seen.events())) // 4


WIDE: dict[str, Any] = {
    "convolutional": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 200)
        ),
        ("1",),
        (2, 3, 32, 32),
        feedback.Channelwise(),
    ),
    "tokens": (lambda: Pooled(), ("one", "two"), (2, 512, 3), feedback.Tokenwise()),
    "vocabulary": (
        # A readout of three weights for each output, so that no weight is as large as F of a wide layer.
        lambda: fa.networks.MLP([3, 512, 3, 3000]),
        ("1",),
        (2, 3),
        feedback.Sketched(2),
    ),
}


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.DRTP])
@pytest.mark.parametrize("name", WIDE)
def test_no_step_makes_a_tensor_of_the_size_of_f(name: str, rule: Any) -> None:
    make, points, shape, recipe = WIDE[name]
    net = rule(make(), points, recipe, example_input=torch.zeros(shape))
    x = torch.ones(shape)
    smallest = min(F.numel() for F in net.feedback_matrices.values())
    activation = max(place.features for place in net.feedback.places) * 2
    largest_weight = max(p.numel() for p in net.parameters())

    def step() -> None:
        functional.cross_entropy(net(x), torch.zeros(2, dtype=torch.int64)).backward()

    step()
    assert max(largest_weight, activation) < smallest
    # Gradients of weights, and activations with a little that a convolution works with.
    assert largest_memory(step) <= max(largest_weight, 2 * activation)


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_drawn_again_it_is_what_it_was(kind: str, recipe: Any) -> None:
    net, *_ = wrapped(fa.DirectKolenPollack, kind, recipe)
    before = {name: value.clone() for name, value in net.feedback.state_dict().items()}
    for buffer in net.feedback.buffers():
        buffer.fill_(99)
    net.reset_feedback()
    assert_same(net.feedback.state_dict(), before)
