"""Every rule against its slow reference in float64, over layers, activations, reductions, small shapes and batches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases.small import ROUNDING
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError
from feedalign.rules import DirectRule

RULES: dict[str, Any] = {
    "backprop": fa.Backprop,
    "conditioned": fa.ConditionedDFA,
    "dfa": fa.DFA,
    "dfa-sign-mean": lambda m, **k: fa.DFA(m, error="sign", reduction="mean", **k),
    "dfa-sign-sum": lambda m, **k: fa.DFA(m, error="sign", reduction="sum", **k),
    "drtp-mean": lambda m, **k: fa.DRTP(m, reduction="mean", **k),
    "drtp-sum": lambda m, **k: fa.DRTP(m, reduction="sum", **k),
    "dkp": fa.DirectKolenPollack,
    "dkp-uncentred": lambda m, **k: fa.DirectKolenPollack(m, centred=False, **k),
    "fa": fa.FA,
    "frozen": lambda m, **k: fa.Frozen(m, **k),
    "kp": fa.KolenPollack,
    "readout": fa.ReadoutOnly,
    "usf": fa.SignSymmetry,
    "brsf": lambda m, **k: fa.SignSymmetry(m, magnitude="batchwise", **k),
    "frsf": lambda m, **k: fa.SignSymmetry(m, magnitude="fixed", **k),
}
ACTIVATIONS: dict[str, Any] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "relu in place": lambda: nn.ReLU(inplace=True),
}


def dense(widths: list[int], activation: str) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(widths, [*widths[1:], 3], strict=True):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def labelled(n: int, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator), torch.randint(3, (n,), generator=generator)


def loss_of(reduction: str) -> Any:
    return lambda output, y: functional.cross_entropy(output, y, reduction=reduction)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    widths=st.lists(st.integers(1, 6), min_size=3, max_size=5),
    n=st.integers(1, 5),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 100),
)
def test_dense_layers(rule: str, widths: list[int], n: int, activation: str, reduction: str, seed: int) -> None:
    net = RULES[rule](dense(widths, activation), seed=seed)
    x, y = labelled(n, widths[0], seed=seed)
    assert fa.check_rule(net, loss_of(reduction), x, y).worst < ROUNDING


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    n=st.integers(1, 4),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_convolutions(
    rule: str, n: int, stride: int, padding: int, dilation: int, groups: int, activation: str, reduction: str
) -> None:
    x, y = labelled(n, 2, 6, 6)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), ACTIVATIONS[activation](),
        nn.Conv2d(4, 2, 3, stride, padding, dilation, groups), ACTIVATIONS[activation](), nn.Flatten(),
    )  # fmt: skip
    features = model.eval()(x).shape[-1]
    model.train().extend([nn.Linear(features, 5), ACTIVATIONS[activation](), nn.Linear(5, 3)])
    assert fa.check_rule(RULES[rule](model), loss_of(reduction), x, y).worst < ROUNDING


@pytest.mark.parametrize("rule", sorted(RULES))
def test_other_layers_dropout_and_several_dimensions(rule: str) -> None:
    """Convolutions of one and three dimensions, with other paddings, transposed ones, dropout."""
    x, y = labelled(3, 2, 8)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 4, 3, padding="same"), nn.GELU(), nn.Dropout(0.4),
        nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.ConvTranspose1d(4, 2, 3, stride=2),
        nn.Tanh(), nn.Unflatten(1, (1, 2)), nn.Unflatten(3, (13, 1)), nn.Conv3d(1, 2, (2, 3, 1)), nn.Tanh(),
        nn.Flatten(), nn.Linear(22, 3),
    )  # fmt: skip
    assert fa.check_rule(RULES[rule](model), functional.cross_entropy, x, y).worst < ROUNDING


@pytest.mark.parametrize("rule", sorted(RULES))
def test_tokens_have_a_batch_axis_of_their_own(rule: str) -> None:
    x, _ = labelled(3, 4, 5)
    y = labelled(12, 1)[1]
    net = RULES[rule](dense([5, 6, 4], "tanh"))
    assert (
        fa.check_rule(net, lambda output, y: functional.cross_entropy(output.flatten(0, 1), y), x, y).worst < ROUNDING
    )


@pytest.mark.parametrize("rule", sorted(RULES))
def test_an_ensemble(rule: str) -> None:
    x, y = labelled(4, 5)
    net = RULES[rule](fa.networks.EnsembleMLP(3, [5, 6, 4, 3]))
    check = fa.check_rule(net, lambda output, y: functional.cross_entropy(output.flatten(0, 1), y), x, y.repeat(3))
    assert check.worst < ROUNDING


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_check_leaves_everything_as_it_was(rule: str) -> None:
    x, y = labelled(4, 2, 6, 6)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5), nn.Tanh(),
        nn.Linear(5, 3),
    )  # fmt: skip
    net = RULES[rule](model, example_input=x)
    net.model[0].weight.grad = torch.ones_like(net.model[0].weight)
    state, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    fa.check_rule(net, functional.cross_entropy, x, y)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(torch.get_rng_state(), random)
    assert [name for name, p in net.named_parameters() if p.grad is not None] == ["model.0.weight"]
    assert all(module.training for module in net.modules())
    assert net.model[0].weight.dtype == torch.float32


def test_the_cosines_tell_backprop_from_other_rules() -> None:
    x, y = labelled(4, 5)
    true = fa.check_rule(fa.Backprop(dense([5, 6, 4], "tanh")), functional.cross_entropy, x, y)
    other = fa.check_rule(fa.FA(dense([5, 6, 4], "tanh")), functional.cross_entropy, x, y)
    assert all(cosine == pytest.approx(1) for cosine in true.cosines.values())
    assert other.cosines["4.weight"] == pytest.approx(1)
    assert all(abs(cosine) < 0.99 for name, cosine in other.cosines.items() if not name.startswith("4"))
    assert "FA: worst error" in str(other)
    assert str(other).count("\n") == 6


class Doubled(DirectRule):
    """Sends twice the error."""

    def message(self, error: Tensor) -> Tensor:
        return 2 * error


def test_a_rule_of_ones_own_needs_its_message_written_down() -> None:
    x, y = labelled(4, 5)
    net = Doubled(dense([5, 6, 4], "tanh"))
    with pytest.raises(ArgumentError, match="no reference for Doubled; for a DirectRule give message="):
        fa.check_rule(net, functional.cross_entropy, x, y)
    assert fa.check_rule(net, functional.cross_entropy, x, y, message=lambda e: e + e).worst < ROUNDING
    wrong = fa.check_rule(net, functional.cross_entropy, x, y, message=lambda e: e)
    assert wrong.worst == pytest.approx(1)
    assert wrong.errors["4.weight"] < ROUNDING


def test_a_model_must_be_wrapped() -> None:
    with pytest.raises(ArgumentError, match="expected a model wrapped in a rule"):
        fa.check_rule(dense([5, 6, 4], "tanh"), functional.cross_entropy, *labelled(4, 5))  # type: ignore[arg-type]
