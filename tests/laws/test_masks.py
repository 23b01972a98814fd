"""A mask among the inputs: padding is sent nothing and counted nowhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.heads import LENGTHS, TOKENS, Classifier
from tests.cases.models import floats, labels
from tests.cases.sending import RULES
from tests.cases.small import EXACT, ROUNDING, assert_same, left_by_backward
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError

REAL = torch.arange(9) < torch.tensor([[3], [5], [9], [2], [1], [4]])  # [batch, token]


class Tokens(nn.Module):
    """A layer for every token; the readout is of every token, or of their mean over the real ones."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 3)
        self.pooled = pooled

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.body(x)
        if self.pooled:
            real = torch.ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
            h = (h * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        out: Tensor = self.head(h)
        return out


def model(pooled: bool) -> Tokens:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Tokens(pooled).double()


def loss(output: Tensor, y: Tensor) -> Tensor:
    """Of one label a sequence. Where every token has an output, padding has an error too, and one that is not zero."""
    if output.ndim == 3:
        y = y[:, None].expand(output.shape[:2])
    return functional.cross_entropy(output.flatten(0, -2), y.flatten(), reduction="sum")


def hidden_gradients(net: Any, x: Tensor, mask: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Of two passes, so that what a rule has learned in the first one counts."""
    for _ in range(2):
        net.zero_grad()
        loss(net(x, mask), y).backward()
    return {name: one for name, one in left_by_backward(net).items() if name.startswith("body")}


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_what_stands_in_the_padding_changes_no_hidden_gradient(name: str, pooled: bool) -> None:
    x, y = floats(6, 9, 4).double(), labels(6)
    other = torch.where(REAL[..., None], x, 100 * floats(6, 9, 4, seed=1).double())
    nets = [RULES[name](model(pooled), points=("body",), mask="mask") for _ in range(2)]
    found = [hidden_gradients(net, given, REAL, y) for net, given in zip(nets, (x, other), strict=True)]
    assert all(gradient.any() for gradient in found[0].values())
    assert_same(*found, **EXACT)
    if name in ("DirectKolenPollack", "published"):
        torch.testing.assert_close(*(net.feedback_matrices["body"] for net in nets), **EXACT)


@pytest.mark.parametrize("name", RULES)
def test_more_padding_changes_no_hidden_gradient(name: str) -> None:
    """Of a model with an output for every token, whose padding has an error."""
    x, y = floats(6, 9, 4).double(), labels(6)
    longer = torch.cat([x, floats(6, 7, 4, seed=1).double()], 1), functional.pad(REAL, (0, 7))
    found = [
        hidden_gradients(RULES[name](model(False), points=("body",), mask="mask"), *given, y)
        for given in ((x, REAL), longer)
    ]
    assert_same(*found, **EXACT)


@pytest.mark.parametrize("pooled", [True, False])
def test_masked_is_what_only_the_real_tokens_are_sent(pooled: bool) -> None:
    """The hidden gradient is that of F e at the real tokens, written down."""
    x, y = floats(6, 9, 4).double(), labels(6)
    net: Any = fa.DFA(model(pooled), points=("body",), mask="mask")
    found = hidden_gradients(net, x, REAL, y)
    output = net.model(x, REAL).detach().requires_grad_()
    (e,) = torch.autograd.grad(loss(output, y), output)
    F = net.feedback_matrices["body"]
    net.zero_grad()
    h = torch.tanh(functional.linear(x, net.model.body[0].weight, net.model.body[0].bias))  # without the cut
    (h * ((e @ F.T).reshape(h.shape) * REAL[..., None])).sum().backward()
    torch.testing.assert_close(net.model.body[0].weight.grad, found["body.0.weight"], **EXACT)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_the_slow_reference_agrees(name: str, pooled: bool, recompute: bool) -> None:
    net = RULES[name](model(pooled), points=("body",), mask="mask", recompute=recompute)
    x = floats(6, 9, 4).double()
    for mask in (REAL, REAL.long(), None):
        assert fa.check_rule(net, loss, {"x": x, "mask": mask}, labels(6)).worst < ROUNDING


def test_the_readout_keeps_its_true_gradient() -> None:
    x, y = floats(6, 9, 4).double(), labels(6)
    masked = fa.DFA(model(False), points=("body",), mask="mask")
    loss(masked(x, REAL), y).backward()
    true = fa.Backprop(model(False), points=("body",))
    loss(true(x, REAL), y).backward()
    name = "head.weight"
    torch.testing.assert_close(left_by_backward(masked)[name], left_by_backward(true)[name], **EXACT)


def test_a_function_of_the_inputs_and_an_input_by_position_or_keyword_are_one() -> None:
    x, y = floats(6, 9, 4).double(), labels(6)
    found = []
    ways: list[tuple[Any, tuple[Tensor, ...], dict[str, Tensor]]] = [
        ("mask", (x, REAL), {}),
        ("mask", (x,), {"mask": REAL}),
        (lambda args, _kwargs: args[1], (x, REAL), {}),
        (lambda _args, kwargs: kwargs["mask"][:, :, None], (x,), {"mask": REAL}),
    ]
    for mask, args, kwargs in ways:
        net = fa.DFA(model(True), points=("body",), mask=mask)
        loss(net(*args, **kwargs), y).backward()
        found.append(left_by_backward(net))
    for other in found[1:]:
        assert_same(found[0], other)


def test_without_the_input_every_entry_is_real() -> None:
    x, y = floats(6, 9, 4).double(), labels(6)
    found = []
    for mask in (None, "mask"):
        net = fa.DFA(model(True), points=("body",), example_input=x, mask=mask)
        loss(net(x), y).backward()
        found.append(left_by_backward(net))
    assert_same(*found)


@pytest.mark.parametrize("at", ["point", "preactivation"])
@pytest.mark.parametrize("pooled", [True, False])
def test_measures_leave_padding_out(pooled: bool, at: Any) -> None:
    x, y = floats(6, 9, 4).double(), labels(6)
    other = torch.where(REAL[..., None], x, 100 * floats(6, 9, 4, seed=1).double())
    net = fa.DFA(model(pooled), points=("body",), mask="mask")
    measured = [fa.gradient_alignment(net, loss, (given, REAL), y, at=at) for given in (x, other)]
    assert measured[0].layers == pytest.approx(measured[1].layers, rel=1e-9)
    assert measured[0].norm_ratios == pytest.approx(measured[1].norm_ratios, rel=1e-9)
    if pooled:
        assert measured[0].skipped == {"body": 0}
    else:
        assert measured[0].skipped == {"body": int((~REAL).sum())}
        assert torch.equal(measured[0].per_sample["body"].isnan(), ~REAL)
        values = [fa.conditioning(net, loss, (given, REAL), y).error.values for given in (x, other)]
        torch.testing.assert_close(*values, **EXACT)


def test_a_sample_that_is_all_padding_counts_nowhere() -> None:
    """In a batch of sequences of which some are empty, the others are sent what they are sent without them."""
    x, y = floats(6, 9, 4).double(), labels(6)
    empty = REAL.clone()
    empty[4:] = False
    found = []
    for n in (6, 4):
        net = fa.DFA(model(False), points=("body",), error="sign", mask="mask")
        loss(net(x[:n], empty[:n]), y[:n]).backward()
        found.append(left_by_backward(net)["body.0.weight"])
    torch.testing.assert_close(*found, **EXACT)


def test_an_encoder_with_a_mask_of_its_own() -> None:
    """Numbers in the padding of a Transformer change nothing below, since attention does not look at padding."""
    found = []
    for filled in (0, 5):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            encoder = Classifier().double()
        net = fa.DFA(encoder, ("layers.0", "layers.1"), error_at="classifier", mask="attention_mask")
        tokens = torch.where(LENGTHS > 0, TOKENS, filled)
        net(tokens, attention_mask=LENGTHS, labels=labels(3)).loss.backward()
        gradients = left_by_backward(net)
        gradients.pop("embed.weight")
        found.append(gradients)
    assert_same(*found, **EXACT)


class Translator(nn.Module):
    """An encoder whose mean joins every token of a decoder with another length."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.decode = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.head(self.decode(target) + self.encode(source).mean(1, keepdim=True))
        return out


def translator(mask: Any) -> tuple[Any, Tensor, Tensor]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        inner = Translator().double()
    source, target = floats(6, 9, 4).double(), floats(6, 5, 4, seed=1).double()
    return fa.DFA(inner, ("encode", "decode"), mask=mask, example_input=(source, target)), source, target


def test_an_encoder_that_is_sent_the_sum_is_sent_nothing_for_samples_that_are_padding() -> None:
    net, source, target = translator("mask")
    assert net.feedback.forms["encode"].summed == 1
    real = torch.tensor([True, True, False, True, True, False])
    loss(net(source, target, real), labels(6)).backward()
    masked = left_by_backward(net)
    net.zero_grad()
    loss(net(source[real], target[real]), labels(6)[real]).backward()
    fewer = left_by_backward(net)
    for name, gradient in fewer.items():
        if not name.startswith("head"):  # the readout keeps its true gradient
            torch.testing.assert_close(masked[name], gradient, **EXACT)


def test_a_mask_of_the_source_does_not_fit_where_the_error_has_the_tokens_of_the_target() -> None:
    net, source, target = translator("mask")
    with pytest.raises(FeedbackShapeError, match=r"the mask has shape \(6, 9\), and where the error is taken"):
        loss(net(source, target, REAL), labels(6)).backward()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("masks", "mask='masks' is no input of the model, choose from: 'x', 'mask'"),
        (3, r"mask must be the name of a model input, or a function of the inputs .*, got 3"),
    ],
)
def test_a_mask_that_is_none_is_refused_at_once(mask: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        fa.DFA(model(True), points=("body",), mask=mask)


@pytest.mark.parametrize("rule", [fa.FA, fa.SignSymmetry, fa.KolenPollack])
def test_sequential_rules_have_nothing_to_mask(rule: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{rule.__name__} sends the error down layer by layer, .*leave mask= out"):
        rule(model(True), points=("head",), mask="mask")


@pytest.mark.parametrize(
    ("mask", "kind", "message"),
    [
        (torch.where(REAL, 0.0, -1e9), ArgumentError, "holds other numbers than 0 and 1, expected 1 for real entries"),
        (REAL[:4], FeedbackShapeError, r"the mask has shape \(4, 9\), .* the batch axes are \(6,\)"),
        (REAL[:, :7], FeedbackShapeError, r"the mask has shape \(6, 7\), which does not go with point 'body' of shape"),
        ([True], ArgumentError, "mask='mask' gives a list, expected a Tensor"),
    ],
)
def test_a_mask_that_does_not_fit_is_told_in_words(mask: Any, kind: Any, message: str) -> None:
    class Ignoring(Tokens):
        def forward(self, x: Tensor, mask: Any = None) -> Tensor:
            return super().forward(x)

    net = fa.DFA(Ignoring(True), points=("body",), mask="mask")
    with pytest.raises(kind, match=message):
        net(floats(6, 9, 4), mask)


class ChannelsFirst(nn.Module):
    """A convolution over tokens, whose features [batch, channel, token] are pooled over the real ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv1d(3, channels, 1), nn.Tanh(), nn.Linear(channels, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.head((self.act(self.conv(x)) * mask[:, None]).sum(-1))
        return out


@pytest.mark.parametrize("point", ["conv", "act"])
@pytest.mark.parametrize("channels", [9, 8], ids=["as many as tokens", "fewer"])
def test_a_mask_never_takes_channels_for_tokens(point: str, channels: int) -> None:
    net = fa.DFA(ChannelsFirst(channels), points=point, mask="mask")
    words = "9 channels and as many tokens" if channels == 9 else "does not go with point"
    with pytest.raises(FeedbackShapeError, match=words):
        net(torch.randn(6, 3, 9), REAL.float()).sum().backward()
