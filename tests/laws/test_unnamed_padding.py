"""Padding that nobody has named: the first batch with padding shows which input marks it, by the true gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.models import floats, labels
from tests.cases.sending import RULES
from tests.cases.small import EXACT, assert_same, left_by_backward
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa

REAL = torch.arange(9) < torch.tensor([[3], [5], [9], [2], [1], [4]])  # [batch, token]
EVERY = torch.ones_like(REAL)
Y = labels(6)


class Tokens(nn.Module):
    """A layer for every token, and a readout of the real tokens' mean, of the first token, or of every token."""

    def __init__(self, read: str = "mean") -> None:
        super().__init__()
        self.body, self.head, self.read = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 3), read

    def forward(self, x: Tensor, mask: Tensor | None, kinds: Tensor | None = None) -> Tensor:
        h = self.body(x if kinds is None else x + kinds[..., None])
        real = torch.ones(x.shape[:2]) if mask is None else mask
        real = real.to(h.dtype)[..., None]
        if self.read == "mean":
            h = (h * real).sum(1) / real.sum(1)
        elif self.read == "first":
            h = h[:, 0]
        out: Tensor = self.head(h)
        return out


class Encoder(nn.Module):
    """One of torch's own layers, whose mask is true for padding; the readout is of the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.layer = nn.Linear(4, 8), nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, *, padding: Tensor | None = None) -> Tensor:
        out: Tensor = self.head(self.layer(self.into(x), src_key_padding_mask=padding)[:, 0])
        return out


def drawn(make: Callable[..., nn.Module], *args: Any) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return make(*args).double()


def data(content: int = 1) -> Tensor:
    """Sequences whose real tokens are always the same; `content` is the seed of what stands in the padding."""
    return torch.where(REAL[..., None], floats(6, 9, 4), 100 * floats(6, 9, 4, seed=content)).double()


def gradients(net: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    net.zero_grad()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        functional.cross_entropy(net(*args, **kwargs), Y).backward()
    return {name: one for name, one in left_by_backward(net).items() if not name.startswith("head")}


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
@pytest.mark.parametrize("name", RULES)
def test_padding_is_found_as_if_it_were_named(name: str, dtype: torch.dtype) -> None:
    found, named = (RULES[name](drawn(Tokens), points=("body",), **more) for more in ({}, {"mask": "mask"}))
    for content in (1, 2):  # twice, so that what a rule has learned counts
        given = data(content), REAL.to(dtype)
        assert_same(gradients(found, *given), gradients(named, *given), **EXACT)
    assert any(gradient.any() for gradient in gradients(found, *given).values())


def test_a_mask_that_marks_padding_is_found() -> None:
    found = fa.DFA(drawn(Encoder), points=("into",), seed=0)
    named = fa.DFA(drawn(Encoder), points=("into",), seed=0, mask=lambda _args, kwargs: ~kwargs["padding"])
    given = {"padding": ~REAL}
    assert_same(gradients(found, data(), **given), gradients(named, data(), **given), **EXACT)
    assert_same(gradients(found, data(2), **given), gradients(named, data(), **given), **EXACT)


def test_padding_that_comes_late_is_found_when_it_comes() -> None:
    net = fa.DFA(drawn(Tokens), points=("body",), seed=0)
    plain = fa.DFA(drawn(Tokens), points=("body",), seed=0, mask=lambda *_: None)
    for given in ((data(), None), (data(), EVERY)):
        assert_same(gradients(net, *given), gradients(plain, *given), **EXACT)
    assert_same(gradients(net, data(1), REAL), gradients(net, data(2), REAL), **EXACT)


@pytest.mark.parametrize("read", ["mean", "first", "every"])
def test_an_input_that_marks_other_tokens_than_the_output_depends_on_is_no_mask(read: str) -> None:
    """Kinds of tokens are zeros and ones too. Where every token has an output, or one alone, the mask marks others."""
    kinds = (torch.arange(9) % 2).expand(6, 9)
    net, plain = (fa.DFA(drawn(Tokens, read), points=("body",), seed=0, **m) for m in ({}, {"mask": lambda *_: None}))
    y = Y[:, None].expand(6, 9) if read == "every" else Y
    for rule in (net, plain):
        output = rule(data(), None if read == "mean" else REAL, kinds)
        functional.cross_entropy(output.flatten(0, -2), y.flatten()).backward()
    assert_same(left_by_backward(net), left_by_backward(plain), **EXACT)


def test_the_mask_is_told_from_kinds_of_tokens() -> None:
    kinds = REAL.roll(1, 1)
    net, named = (fa.DFA(drawn(Tokens), points=("body",), seed=0, **more) for more in ({}, {"mask": "mask"}))
    assert_same(gradients(net, data(), REAL, kinds), gradients(named, data(), REAL, kinds), **EXACT)


def test_a_mask_that_says_nothing_keeps_every_token() -> None:
    net = fa.DFA(drawn(Tokens), points=("body",), seed=0, mask=lambda *_: None)
    one, other = gradients(net, data(1), REAL), gradients(net, data(2), REAL)
    assert not torch.allclose(one["body.0.weight"], other["body.0.weight"])


def test_measurements_find_the_padding_before_any_pass() -> None:
    found, named = (fa.DFA(drawn(Tokens), points=("body",), seed=0, **more) for more in ({}, {"mask": "mask"}))
    given = (data(), REAL), Y
    one, other = (fa.gradient_alignment(net, functional.cross_entropy, *given) for net in (found, named))
    assert one.layers == other.layers
    fa.check_rule(found, functional.cross_entropy, *given)


def test_the_search_leaves_no_trace() -> None:
    net = fa.DFA(drawn(Encoder), points=("into",), seed=0, example_input=data())
    state, random = {name: one.clone() for name, one in net.state_dict().items()}, torch.get_rng_state()
    net.masks_of((data(),), {"padding": ~REAL})
    assert net.training
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(net.state_dict(), state, **EXACT)
    assert all(parameter.grad is None for parameter in net.parameters())
