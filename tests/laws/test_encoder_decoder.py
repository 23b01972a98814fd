"""Encoders and decoders of different lengths: wrapped as they are, with the padding of each left out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.models import floats
from tests.cases.sending import RULES
from tests.cases.small import EXACT, ROUNDING, assert_same, left_by_backward
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback import Gaussian, Shared, Sketched, Tokenwise

CLASSES, SOURCE, TARGET = 5, 7, 4
RECIPES: list[Any] = [
    None,
    Tokenwise(),
    Tokenwise(Shared()),
    Sketched(3, Tokenwise()),
    Sketched(3, Tokenwise(Shared())),
]
REAL_SOURCE = torch.arange(SOURCE) < torch.tensor([[7], [3], [5], [1], [6]])  # [batch, token of the source]
REAL_TARGET = torch.arange(TARGET) < torch.tensor([[2], [4], [1], [3], [4]])
MASKS: dict[str, Any] = {
    "none": None,
    "of the target": "target_mask",
    "of the source": {"encode": "source_mask"},
    "of both": {"encode": "source_mask", "": "target_mask"},
    "of both, by point": {"encode": "source_mask", "decode": "target_mask", "": "target_mask"},
}


class Translator(nn.Module):
    """The mean of the source's tokens is added to every token of the target."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.decode = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 8), nn.Tanh())
        self.head = nn.Linear(8, CLASSES)

    def forward(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        real = torch.ones(source.shape[:2], dtype=torch.bool) if source_mask is None else source_mask
        encoded = self.encode(source) * real[..., None]
        out: Tensor = self.head(self.decode(target) + encoded.sum(1, keepdim=True) / real.sum(1)[:, None, None])
        return out


def translator() -> Translator:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Translator().double()


def wrapped(name: str = "DFA", recipe: Any = None, mask: Any = None, **options: Any) -> Any:
    options = {"example_input": inputs(), **options}
    return RULES[name](translator(), ("encode", "decode"), recipe, mask=mask, **options)


def inputs(source: int = SOURCE, target: int = TARGET) -> tuple[Tensor, Tensor]:
    return floats(5, source, 4).double(), floats(5, target, 4, seed=1).double()


def loss(output: Tensor, _: Any) -> Tensor:
    """Of the same class at every token, so that padding has an error too."""
    labels = (torch.arange(len(output)) % CLASSES).repeat_interleave(output.shape[1])
    return functional.cross_entropy(output.flatten(0, 1), labels, reduction="sum")


def step(net: Any, *given: Tensor) -> dict[str, Tensor]:
    """Return the hidden gradients of two passes, so that what a rule has learned in the first one counts."""
    for _ in range(2):
        net.zero_grad()
        loss(net(*given), None).backward()
    return {name: one for name, one in left_by_backward(net).items() if not name.startswith("head")}


@pytest.mark.parametrize("lengths", [(7, 4), (3, 5), (1, 2), (5, 5)])
def test_validate_finds_no_problem_where_the_rule_finds_none(lengths: tuple[int, int]) -> None:
    model = translator()
    assert str(fa.validate(model, ("encode", "decode"), *inputs(*lengths))) == (
        "no problems: 8 parameters learn with 2 points (encode, decode)"
    )
    step(fa.DFA(model, ("encode", "decode"), example_input=inputs(*lengths)), *inputs(*lengths))


def test_validate_and_the_rule_refuse_the_same_where_features_are_not_last() -> None:
    """Channels first: the axis that the output lacks is not known to be tokens."""
    model = translator()
    model.encode = nn.Sequential(nn.Conv1d(7, 7, 1), nn.Tanh(), nn.AdaptiveAvgPool1d(8)).double()
    found = fa.validate(model, ("encode", "decode"), *inputs())
    assert [problem.name for problem in found.problems] == ["encode"]
    assert "has shape (5, 7, 8), but the output has the batch axes (5, 4)" in str(found)
    with pytest.raises(FeedbackShapeError, match=r"'encode'.* has shape \(5, 7, 8\)"):
        fa.DFA(model, ("encode", "decode"), example_input=inputs())


def test_validate_takes_other_lengths_of_one_point_as_the_rule_does() -> None:
    class Twice(Translator):
        def forward(self, source: Tensor, target: Tensor, *masks: Any) -> Tensor:
            again: Tensor = self.head(self.encode(target))
            return super().forward(source, target, *masks) + again

    model = Twice().double()
    assert fa.validate(model, ("encode", "decode"), *inputs(7, 4)).ok
    assert fa.validate(model, ("encode", "decode"), *inputs(7, 4), batch_dims=1).problems[0].name == "encode"


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("recipe", RECIPES, ids=repr)
@pytest.mark.parametrize("name", RULES)
def test_the_slow_reference_agrees(name: str, recipe: Any, mask: Any) -> None:
    net = wrapped(name, recipe, mask)
    source, target = inputs()
    given = {"source": source, "target": target, "source_mask": REAL_SOURCE, "target_mask": REAL_TARGET}
    assert fa.check_rule(net, loss, given, None).worst < ROUNDING
    assert fa.check_rule(net, loss, inputs(2, 6), None).worst < ROUNDING


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", ["DFA", "sign", "ConditionedDFA", "DirectKolenPollack"])
def test_recomputed_it_is_the_same(name: str, mask: Any) -> None:
    given = *inputs(), REAL_SOURCE, REAL_TARGET
    nets = [wrapped(name, Tokenwise(Shared()), mask, recompute=recompute) for recompute in (False, True)]
    assert_same(*(step(net, *given) for net in nets), **EXACT)
    assert_same(*(net.feedback_matrices for net in nets), **EXACT)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("recipe", RECIPES[1:], ids=repr)
def test_what_stands_in_the_padding_of_source_and_target_changes_nothing(recipe: Any, name: str) -> None:
    source, target = inputs()
    other = (
        torch.where(REAL_SOURCE[..., None], source, 100 * floats(5, SOURCE, 4, seed=2).double()),
        torch.where(REAL_TARGET[..., None], target, 100 * floats(5, TARGET, 4, seed=3).double()),
    )
    nets = [wrapped(name, recipe, MASKS["of both"]) for _ in range(2)]
    found = [step(net, *given, REAL_SOURCE, REAL_TARGET) for net, given in zip(nets, (inputs(), other), strict=True)]
    assert all(gradient.any() for gradient in found[0].values())
    assert_same(*found, **EXACT)
    assert_same(*(net.feedback_matrices for net in nets), **EXACT)


@pytest.mark.parametrize("name", RULES)
def test_more_padding_changes_nothing(name: str) -> None:
    source, target = inputs()
    longer = (
        torch.cat([source, floats(5, 3, 4, seed=2).double()], 1),
        torch.cat([target, floats(5, 2, 4, seed=3).double()], 1),
        functional.pad(REAL_SOURCE, (0, 3)),
        functional.pad(REAL_TARGET, (0, 2)),
    )
    nets = [wrapped(name, Tokenwise(), MASKS["of both"]) for _ in range(2)]
    assert_same(step(nets[0], source, target, REAL_SOURCE, REAL_TARGET), step(nets[1], *longer), **EXACT)
    assert_same(nets[0].state_dict(), nets[1].state_dict(), **EXACT)


def test_each_real_token_of_the_source_is_sent_the_sum_of_the_errors_at_the_real_tokens_of_the_target() -> None:
    """Written down: the gradient of the encoder is that of Σ F e at its real tokens."""
    net = wrapped("DFA", Tokenwise(), MASKS["of both"])
    source, target = inputs()
    found = step(net, source, target, REAL_SOURCE, REAL_TARGET)
    output = net.model(source, target, REAL_SOURCE, REAL_TARGET).detach().requires_grad_()
    (e,) = torch.autograd.grad(loss(output, None), output)
    summed = (e * REAL_TARGET[..., None]).sum(1)  # [batch, C]
    sent = (summed @ net.feedback["encode"].T)[:, None] * REAL_SOURCE[..., None]
    encode = copy.deepcopy(net.model.encode)  # a copy has no cut
    encode.zero_grad()
    (encode(source) * sent).sum().backward()
    torch.testing.assert_close(encode[0].weight.grad, found["encode.0.weight"], **EXACT)


def test_sources_and_targets_may_have_other_lengths_in_every_batch() -> None:
    """The gradients are those of a model that is wrapped for these lengths."""
    net = wrapped("DFA", Sketched(3, Tokenwise(Shared())))
    for lengths in ((7, 4), (5, 3), (2, 9)):
        alone = fa.DFA(
            translator(), ("encode", "decode"), Sketched(3, Tokenwise(Shared())), example_input=inputs(*lengths)
        )
        assert_same(step(net, *inputs(*lengths)), step(alone, *inputs(*lengths)), **EXACT)


@pytest.mark.parametrize("at", ["point", "preactivation", "parameters"])
def test_measures_leave_the_padding_of_both_out(at: Any) -> None:
    source, target = inputs()
    other = torch.where(REAL_SOURCE[..., None], source, 100 * floats(5, SOURCE, 4, seed=2).double())
    net = wrapped("DFA", Tokenwise(), MASKS["of both"])

    def real_loss(output: Tensor, _: Any) -> Tensor:
        return loss(output * REAL_TARGET[..., None], None)

    measured = [
        fa.gradient_alignment(net, real_loss, (given, target, REAL_SOURCE, REAL_TARGET), None, at=at)
        for given in (source, other)
    ]
    assert measured[0].layers == pytest.approx(measured[1].layers, rel=1e-9)
    assert all(abs(cosine) > 1e-3 for cosine in measured[0].layers.values())


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_the_mask_of_the_source_is_found_where_nobody_names_it(name: str, early: bool) -> None:
    """The decoder's tokens have outputs of their own, padding too, so that backprop teaches all of them."""
    given = *inputs(), REAL_SOURCE, REAL_TARGET
    net = wrapped(name, Tokenwise(), example_input=given if early else inputs())
    assert_same(step(net, *given), step(wrapped(name, Tokenwise(), MASKS["of the source"]), *given), **EXACT)


def test_a_mask_of_a_point_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ArgumentError, match="mask has the key 'encoder', which is no point; give masks by point, from"):
        wrapped(mask={"encoder": "source_mask"})
    with pytest.raises(ArgumentError, match="mask='mask' is no input of the model, choose from: 'source', 'target'"):
        wrapped(mask={"encode": "mask"})


def test_one_mask_of_the_source_is_refused_in_words_that_say_what_to_give() -> None:
    net = wrapped(mask="source_mask")
    with pytest.raises(FeedbackShapeError, match=r'give a dict of masks by point, \{"encoder": "source_mask"\}'):
        step(net, *inputs(), REAL_SOURCE, REAL_TARGET)


def test_a_matrix_for_one_length_is_told_when_another_comes() -> None:
    net = wrapped("DFA", Gaussian())
    with pytest.raises(FeedbackShapeError, match=r"of several lengths or sizes give feedback=feedback\.Tokenwise\(\)"):
        step(net, *inputs(3, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler's own
@pytest.mark.parametrize("name", ["DFA", "DirectKolenPollack"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_compiled_it_is_the_same(mask: Any, name: str) -> None:
    torch.compiler.reset()
    given = *inputs(), REAL_SOURCE, REAL_TARGET
    plain, net = (wrapped(name, Tokenwise(Shared()), mask, example_input=given) for _ in range(2))
    compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert_same(step(compiled, *given), step(plain, *given), **EXACT)
    assert_same(net.state_dict(), plain.state_dict(), **EXACT)
