"""Sequences of several lengths and images of several sizes, with one feedback matrix for all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.compact import CLASSES, case, numbers, step_of, wrapped
from tests.cases.small import EXACT, assert_same

import feedalign as fa
from feedalign import feedback
from feedalign.errors import FeedbackShapeError


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.ConditionedDFA])
@pytest.mark.parametrize("kind", ["pooled", "two lengths"])
def test_every_batch_may_have_another_length(kind: str, rule: Any) -> None:
    """The gradients of each are those of a matrix that is drawn for this length."""
    net, inputs, _ = wrapped(rule, kind, None)
    for length in (1, 9, 4):
        others = (numbers(5, length, 3), *inputs[1:])
        model, points, _ = case(kind)
        arrays = {name: net.feedback[name].repeat(1 if name == "decode" else length, 1) for name in points}
        twin = rule(model, points, feedback.FromArray(arrays), example_input=others)
        if rule is fa.ConditionedDFA:
            twin.gathered.load_state_dict(net.gathered.state_dict())
        expected = step_of(others)(twin)
        assert_same(step_of(others)(net), expected, **EXACT)


def test_padding_changes_nothing_that_a_token_is_sent() -> None:
    net, *_ = wrapped(fa.DFA, "pooled", None)
    form, S = net.feedback.forms["one"], net.feedback["one"]
    message = numbers(5, CLASSES)
    short, long = (fa.rules.signal(message, S, form, (5, length, 4)) for length in (3, 8))
    assert torch.equal(short, long[:, :3])
    torch.testing.assert_close(short[:, 1], message @ S.T)


def test_an_encoder_is_sent_the_sum_of_the_errors_at_the_tokens_of_the_decoder() -> None:
    net, _, _ = wrapped(fa.DFA, "two lengths", None)
    message = numbers(5, 2, CLASSES)
    encode, decode = (net.feedback.forms[name] for name in ("encode", "decode"))
    assert (encode.summed, decode.summed) == (1, 0)
    sent = fa.rules.signal(message, net.feedback["encode"], encode, (5, 4, 6))
    torch.testing.assert_close(sent, (message.sum(1) @ net.feedback["encode"].T)[:, None].expand(5, 4, 6))


def test_several_lengths_under_a_matrix_for_one_length_are_told() -> None:
    net, *_ = wrapped(fa.DFA, "pooled", feedback.Gaussian())
    with pytest.raises(FeedbackShapeError, match=r"of several lengths or sizes give feedback=feedback\.Tokenwise\(\)"):
        net(numbers(5, 9, 3))


def test_images_of_another_size_are_sent_their_signal() -> None:
    net, *_ = wrapped(fa.DFA, "images", feedback.Channelwise())
    full, *_ = wrapped(fa.DFA, "images", feedback.Gaussian())
    x = numbers(5, 2, 8, 8)
    step_of((x,))(net)
    with pytest.raises(FeedbackShapeError, match="does not fit the activation"):
        full(x)
