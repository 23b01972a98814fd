"""Padding that nobody has named: at its first look the rule asks the model which input marks padding, and where."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from tests.cases.models import labels
from tests.cases.padded import BATCH, CASES, EVERY, KINDS, REAL, TOKENS, Padded, data, positional
from tests.cases.padded_models import Encoder, Kinds, Twofold, end, every, first, greatest, last, mean
from tests.cases.sending import RULES
from tests.cases.small import EXACT, ROUNDING, assert_same, left_by_backward
from torch import Tensor
from torch.nn import functional

import feedalign as fa

Y = labels(BATCH)
PLAIN = CASES["mean, true is real"]
TRACED = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler's own


def step(net: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, run: Any = None) -> dict[str, Tensor]:
    """Return the hidden gradients of one pass."""
    net.zero_grad()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        output = (net if run is None else run)(*args, **(kwargs or {}))
        functional.cross_entropy(output.flatten(0, -2), Y.repeat_interleave(output.shape[1:-1].numel())).backward()
    return {name: one for name, one in left_by_backward(net).items() if not name.startswith("head")}


@pytest.mark.parametrize("begin", [None, EVERY], ids=["", "no padding at first"])
@pytest.mark.parametrize("name", CASES)
def test_padding_is_found_as_if_it_were_named(name: str, begin: Tensor | None) -> None:
    case = CASES[name]
    for real in case.masks:
        found, named = case.wrapped(), case.named(real)
        if begin is not None:
            step(found, *case.given(data(begin), begin))
        ours = step(found, *case.given(data(real), real))
        assert_same(ours, step(named, *case.given(data(real), real)), **EXACT)
        if case.masked is None:  # where padding does not reach the output at any point, what stands in it says nothing
            assert_same(ours, step(found, *case.given(data(real, 2), real)), **EXACT)
        assert any(gradient.any() for gradient in ours.values())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_finds_it(name: str, recompute: bool) -> None:
    found, named = PLAIN.wrapped(RULES[name], recompute=recompute), PLAIN.named(REAL, RULES[name], recompute=recompute)
    for content in (1, 2):  # twice, so that what a rule has learned counts
        assert_same(step(found, (data(REAL, content), REAL)), step(named, (data(REAL, content), REAL)), **EXACT)
    assert_same(found.state_dict(), named.state_dict(), **EXACT)


USES = ["added", "replaced", "scaled", "turned"]
FLAGS = [KINDS, ~EVERY, EVERY, REAL, torch.arange(TOKENS).expand(BATCH, TOKENS) == 0]


@pytest.mark.parametrize("activation", [torch.tanh, torch.relu])
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("read", [mean, first, greatest, last, end, every])
def test_flags_that_mean_something_else_are_no_mask(read: Any, use: str, activation: Any) -> None:
    """Tokens that the output does not depend on, or hardly, are no padding: those that are not read, or no maximum."""
    points = ("into", "blocks.0", "blocks.1", *(() if read is every else ("body",)))
    case = Padded(lambda: Kinds(read, use, activation=activation), points, positional())
    for flags, dtype in zip(FLAGS, itertools.cycle((torch.bool, torch.int64, torch.float64)), strict=False):
        given = data(REAL), flags.to(dtype)
        # What is replaced has no gradient below. Where every token has an output, nothing is taken for padding.
        mask = {"into": lambda *_: ~flags} if use == "replaced" and read is not every else lambda *_: None  # noqa: B023
        assert_same(step(case.wrapped(), given), step(case.wrapped(mask=mask), given), **EXACT)


def test_two_masks_are_one() -> None:
    case = Padded(lambda: Twofold(mean), PLAIN.points, positional())
    other = KINDS | (torch.arange(TOKENS) == 1)
    given = data(REAL), REAL, other
    assert_same(step(case.wrapped(), given), step(case.named(REAL & other), given), **EXACT)


def test_a_mask_is_told_from_flags_that_are_the_same_in_this_batch() -> None:
    class Both(Kinds):
        def forward(self, x: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:  # type: ignore[override]
            return Encoder.forward(self, x + self.kind(kinds.long()), mask)

    case = Padded(lambda: Both(mean), PLAIN.points, positional())
    found, named = case.wrapped(), case.named(REAL)
    for flags in (REAL, KINDS):
        assert_same(step(found, (data(REAL), REAL, flags)), step(named, (data(REAL), REAL, flags)), **EXACT)


def test_a_new_readout_of_zeros_hides_no_padding() -> None:
    nets = [PLAIN.wrapped(), PLAIN.named(REAL)]
    for net in nets:
        torch.nn.init.zeros_(net.model.head.weight)
        torch.nn.init.zeros_(net.model.blocks[0].out.weight)
    assert_same(*(step(net, (data(REAL), REAL)) for net in nets), **EXACT)
    assert all(not net.model.head.weight.any() for net in nets)


def test_an_input_that_comes_late_is_looked_at_when_it_comes() -> None:
    net, plain, named = PLAIN.wrapped(), PLAIN.wrapped(mask=lambda *_: None), PLAIN.named(REAL)
    assert_same(step(net, (data(REAL),)), step(plain, (data(REAL),)), **EXACT)
    assert_same(step(net, (data(REAL), REAL)), step(named, (data(REAL), REAL)), **EXACT)
    assert_same(step(net, (data(REAL),)), step(plain, (data(REAL),)), **EXACT)


class Either(Encoder):
    """As in torch's attention, true means a real token, and numbers are added to the logits."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x, mask if mask is None or mask.dtype == torch.bool else mask > -1)


def test_the_same_input_may_say_the_opposite_as_another_type() -> None:
    case = Padded(lambda: Either(mean), PLAIN.points, positional())
    added = torch.where(REAL, 0.0, -torch.inf).double()
    net, named = case.wrapped(), case.named(REAL)
    for mask in (REAL, added, REAL):
        assert_same(step(net, (data(REAL), mask)), step(named, (data(REAL), mask)), **EXACT)


def test_a_function_that_says_nothing_keeps_every_token() -> None:
    net = PLAIN.wrapped(mask=lambda *_: None)
    one, other = (step(net, (data(REAL, content), REAL)) for content in (1, 2))
    assert not torch.allclose(one["into.weight"], other["into.weight"])


def test_copies_know_what_the_net_knows() -> None:
    net = PLAIN.wrapped()
    early = copy.deepcopy(net)
    expected = step(PLAIN.named(REAL), (data(REAL), REAL))
    step(net, (data(EVERY), EVERY))
    loaded = PLAIN.wrapped(example_input=(data(EVERY), EVERY))
    loaded.load_state_dict(net.state_dict())
    for one in (early, copy.deepcopy(net), loaded):
        assert_same(step(one, (data(REAL), REAL)), expected, **EXACT)


def test_under_autocast() -> None:
    nets = [net.float() for net in (PLAIN.wrapped(), PLAIN.named(REAL))]
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(*(step(net, (data(REAL).float(), REAL)) for net in nets))


@pytest.mark.parametrize("name", ["mean, true is real", "torch's own, first token", "in a dict"])
def test_measurements_find_padding_before_any_pass(name: str) -> None:
    case = CASES[name]
    args, kwargs = case.given(data(REAL), REAL)
    x = {"x": args[0], **kwargs} if kwargs else args
    measured = [
        fa.gradient_alignment(net, functional.cross_entropy, x, Y) for net in (case.wrapped(), case.named(REAL))
    ]
    assert measured[0].layers == measured[1].layers
    assert fa.check_rule(case.wrapped().eval(), functional.cross_entropy, x, Y).worst < ROUNDING


def test_the_look_leaves_no_trace() -> None:
    case = CASES["torch's own, first token"]
    net = case.wrapped(example_input=data(REAL))
    state, random = {name: one.clone() for name, one in net.state_dict().items()}, torch.get_rng_state()
    net.masks_of((data(REAL),), {"padding": ~REAL})
    assert net.training
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(net.state_dict(), state)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.slow
@TRACED
@pytest.mark.parametrize("name", ["mean, true is real", "words"])
def test_compiled_it_is_the_same(name: str) -> None:
    torch.compiler.reset()
    case = CASES[name]
    plain, net = case.wrapped(), case.wrapped()
    for one in (plain, net):
        one(*case.given(data(EVERY), EVERY)[0], **case.given(data(EVERY), EVERY)[1])  # a first look without padding
    compiled: Any = torch.compile(net.eval(), backend="aot_eager", fullgraph=True)
    args, kwargs = case.given(data(REAL), REAL)
    assert_same(step(net, args, kwargs, compiled), step(plain.eval(), args, kwargs), **EXACT)


@pytest.mark.slow
@TRACED
def test_an_input_that_comes_late_to_compiled_code_is_refused_or_looked_at() -> None:
    """Code in one graph cannot ask the model; code that may break asks it outside of the graph."""
    torch.compiler.reset()
    net = PLAIN.wrapped(example_input=data(EVERY))
    compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"whether the input mask \(bool, 2 axes\) marks padding"):
        step(net, (data(REAL), REAL), run=compiled)
    torch.compiler.reset()
    net = PLAIN.wrapped(example_input=data(EVERY))
    compiled = torch.compile(net, backend="aot_eager")
    expected = step(PLAIN.named(REAL), (data(REAL), REAL))
    for _ in range(2):
        assert_same(step(net, (data(REAL), REAL), run=compiled), expected, **EXACT)
