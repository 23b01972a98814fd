"""A loss that passes by what the wrapped model returns sends no error, wherever the model has put it: refused."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.models import floats, labels
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook

import feedalign as fa
from feedalign.errors import OutputError

X, Y = floats(5, 4), labels(5)
REFUSED = r"is not passed by this loss.*error_at=.*net\.backprop\(\)"


class Slots:
    __slots__ = ("logits", "loss")

    def __init__(self, logits: Tensor, loss: Tensor) -> None:
        self.logits, self.loss = logits, loss


class Model(nn.Module):
    """Computes its own loss, and puts the logits and the loss somewhere."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.gate, self.readout = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)
        self.give, self.kept = give, torch.zeros(())

    def forward(self, x: Tensor) -> Any:
        logits = self.readout(self.gate(self.hidden(x)))
        self.kept = functional.cross_entropy(logits, Y)
        return self.give(logits, self.kept)


GIVEN: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any, Callable[[Any], Tensor]]] = {
    "a plain object": (lambda h, loss: types.SimpleNamespace(logits=h, loss=loss), "logits", lambda out: out.logits),
    "an object with slots": (Slots, "logits", lambda out: out.logits),
    "loss of each sample": (lambda h, loss: {"logits": h, "loss": loss.view(1)}, "logits", lambda out: out["logits"]),
    "nothing": (lambda h, _: h, None, lambda out: out),
    "a softmax of the logits": (lambda h, loss: {"p": h.softmax(-1)}, "p", lambda out: out["p"]),
    "two entries": (lambda h, loss: (h[:, :1], h[:, 1:]), (0, 1), lambda out: torch.cat(out, 1)),
}
RULES = [fa.DFA, fa.DRTP, fa.DirectKolenPollack, fa.ConditionedDFA]


def losses(name: str, rule: Any) -> tuple[Any, Tensor, Tensor]:
    """Return a net, the loss of what the net returns, and the loss that the model has kept."""
    give, entry, logits = GIVEN[name]
    model = Model(give)
    net = rule(model, ("gate",), seed=1, output=entry, example_input=X)
    returned = functional.cross_entropy(logits(net(X)), Y)
    return net, returned, model.kept


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", GIVEN)
def test_the_loss_that_the_model_has_kept_is_refused(name: str, rule: Any) -> None:
    net, returned, kept = losses(name, rule)
    with pytest.raises(OutputError, match=REFUSED):
        kept.backward(retain_graph=True)
    returned.backward(retain_graph=True)  # another backward pass is another matter
    assert all(parameter.grad is not None for parameter in net.parameters())
    with pytest.raises(OutputError, match=REFUSED):
        kept.backward()


@pytest.mark.parametrize("name", [name for name in GIVEN if "softmax" not in name])
def test_the_loss_of_what_is_returned_trains_as_ever(name: str) -> None:
    net, returned, _ = losses(name, fa.DFA)
    returned.backward()
    found = {key: p.grad.clone() for key, p in net.named_parameters()}
    plain = fa.DFA(nn.Sequential(*(getattr(Model(lambda h, _: h), n) for n in ("hidden", "gate", "readout"))), ("1",))
    plain.feedback["1"].copy_(net.feedback["gate"])
    functional.cross_entropy(plain(X), Y).backward()
    for one, other in zip(found.values(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_a_loss_of_both_sends_the_error_of_what_is_returned() -> None:
    net, returned, kept = losses("nothing", fa.DFA)
    (returned + kept).backward()
    hidden = net.model.hidden.weight.grad.clone()
    other, again, _ = losses("nothing", fa.DFA)
    again.backward()
    torch.testing.assert_close(hidden, other.model.hidden.weight.grad)


def test_within_backprop_the_model_may_keep_its_loss() -> None:
    net, *_ = losses("nothing", fa.DFA)
    with net.backprop():
        net(X)
    net.model.kept.backward()
    bare = Model(lambda h, _: h)
    functional.cross_entropy(bare(X), Y).backward()
    for one, other in zip(net.parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("of_all", [False, True], ids=["a hook on the readout", "a hook for every module"])
def test_a_loss_that_a_forward_hook_keeps_is_refused_in_a_chain_too(of_all: bool) -> None:
    """Torch's own modules keep no loss, but a user's hook on them may; the hook is set after the first pass."""
    chain = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    net, kept = fa.DFA(chain), []
    net(X)

    def keep(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if module is chain[2]:
            kept.append(functional.cross_entropy(output, Y))

    with register_module_forward_hook(keep) if of_all else chain[2].register_forward_hook(keep):
        returned = functional.cross_entropy(net(X), Y)
    with pytest.raises(OutputError, match=REFUSED):
        kept[0].backward(retain_graph=True)
    returned.backward()
    assert chain[0].weight.grad is not None
