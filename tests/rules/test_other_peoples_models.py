"""What other people's models do: state in objects, losses inside, outputs that differ by mode, switches of trainers."""

from __future__ import annotations

import inspect
import types
from typing import Any

import pytest
import torch
from tests.cases.models import floats, labels
from tests.cases.outputs import Named
from tests.cases.small import ROUNDING, hooks_on
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

import feedalign as fa
from feedalign.errors import OutputError, PointsError


class Net(nn.Module):
    """One hidden layer, and a forward pass that a subclass writes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.gate, self.readout = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)
        self.config = {"labels": 3}
        self.double()


X = floats(5, 4).double()


def test_no_gradient_passes_a_point_in_an_object_of_the_models_own() -> None:
    class Cell(nn.Module):
        def forward(self, h: Tensor) -> Any:
            return h.tanh(), types.SimpleNamespace(memory=2 * h)

    class Model(Net):
        def forward(self, x: Tensor) -> Tensor:
            h, state = self.gate(self.hidden(x))
            out: Tensor = self.readout(h + state.memory)
            return out

    model = Model()
    model.gate = Cell()  # type: ignore[assignment]
    net = fa.DFA(model, points=("gate",))
    output = net(X)
    output.backward(torch.ones_like(output))
    sent = torch.ones_like(output) @ net.feedback_matrices["gate"].T * (1 - model.hidden(X).tanh() ** 2)
    torch.testing.assert_close(model.hidden.weight.grad, sent.T @ X)


def test_an_attribute_of_a_plain_object_carries_the_error() -> None:
    class Model(Net):
        def forward(self, x: Tensor) -> Any:
            return types.SimpleNamespace(logits=self.readout(self.gate(self.hidden(x))), note="kept")

    model = Model()
    net = fa.DFA(model, points=("gate",), output="logits")
    output = net(X)
    output.logits.backward(torch.ones(5, 3).double())
    sent = torch.ones(5, 3).double() @ net.feedback_matrices["gate"].T * (1 - model.hidden(X).tanh() ** 2)
    assert output.note == "kept"
    torch.testing.assert_close(model.hidden.weight.grad, sent.T @ X)


def test_a_loss_inside_the_model_is_refused_by_name() -> None:
    class Model(Net):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            logits = self.readout(self.gate(self.hidden(x)))
            return {"loss": None if labels is None else functional.cross_entropy(logits, labels), "logits": logits}

    net = fa.DFA(Model(), points=("gate",), output="logits")
    words = "holds a loss that the model has computed itself from the entry 'logits': the entry 'loss'"
    with pytest.raises(OutputError, match=words):
        net(X, labels=labels(5))
    assert net(X)["logits"].requires_grad
    (problem,) = fa.validate(Model(), ("gate",), X, labels(5), output="logits").problems
    assert words in problem.words
    assert fa.validate(Model(), ("gate",), X, output="logits")


def test_a_metric_of_the_logits_is_refused_until_the_model_returns_it_detached() -> None:
    class Model(Net):
        detached = False

        def forward(self, x: Tensor) -> Any:
            logits = self.readout(self.gate(self.hidden(x)))
            confidence = logits.softmax(-1).amax(-1).mean()
            return {"logits": logits, "confidence": confidence.detach() if self.detached else confidence}

    model = Model()
    net = fa.DFA(model, points=("gate",), output="logits")
    with pytest.raises(OutputError, match="if 'confidence' is a metric and no loss, let the model return it detached"):
        net(X)
    model.detached = True
    net(X)["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_loss_of_what_lies_below_the_logits_trains_its_own_part() -> None:
    """As the balance of a mixture of experts, which a model returns with and without labels."""

    class Model(Net):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(6, 2).double()

        def forward(self, x: Tensor) -> Any:
            h = self.gate(self.hidden(x))
            return {"logits": self.readout(h), "balance": self.router(h).softmax(-1).mean(0).square().sum()}

    model = Model()
    net = fa.DFA(model, points=("gate",), output="logits")
    assert fa.validate(Model(), ("gate",), X, output="logits")
    output = net(X)
    (functional.cross_entropy(output["logits"], labels(5)) + output["balance"]).backward()
    (true,) = torch.autograd.grad(
        model.router(model.gate(model.hidden(X)).detach()).softmax(-1).mean(0).square().sum(), [model.router.weight]
    )
    torch.testing.assert_close(model.router.weight.grad, true)
    check = fa.check_rule(net, lambda out, y: functional.cross_entropy(out["logits"], y) + out["balance"], X, labels(5))
    assert check.worst < ROUNDING


def test_an_output_that_is_several_things_in_training_alone() -> None:
    class Model(Net):
        def forward(self, x: Tensor) -> Any:
            logits = self.readout(self.gate(self.hidden(x)))
            return Named(logits, logits.detach()) if self.training else logits

    assert fa.validate(Model(), ("gate",), X, output="logits")
    net = fa.DFA(Model(), points=("gate",), output="logits")
    net(X).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert isinstance(net.eval()(X), Tensor)


def test_a_trainer_finds_signature_config_and_switches() -> None:
    class Model(Net):
        def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Tensor:
            out: Tensor = self.readout(self.gate(self.hidden(input_ids)))
            return out

        def gradient_checkpointing_enable(self, **_options: Any) -> str:
            return "on"

    net = fa.DFA(Model(), points=("gate",))
    assert list(inspect.signature(net.forward).parameters) == ["input_ids", "attention_mask"]
    assert net.config == {"labels": 3}
    assert net.gradient_checkpointing_enable() == "on"
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = net.nothing_of_the_kind


def test_an_averaged_copy_made_before_the_first_batch_has_the_feedback() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 3)).double()
    net = fa.DFA(model, points=("1",))
    average: Any = AveragedModel(net)
    functional.cross_entropy(net(X[:, None]), labels(5)).backward()
    average.update_parameters(net)
    average.update_parameters(net)
    assert torch.equal(average.module.feedback_matrices["1"], net.feedback_matrices["1"])
    assert hooks_on(average.module.unwrap()) == []


def test_measuring_in_inference_mode_finds_what_it_finds_outside() -> None:
    net = fa.DFA(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double())
    outside = fa.gradient_alignment(net, functional.cross_entropy, X, labels(5)).total
    with torch.inference_mode():
        assert fa.gradient_alignment(net, functional.cross_entropy, X.clone(), labels(5)).total == outside


# Torch's own word on the checkpoint.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_a_reentrant_checkpoint_inside_of_a_block_is_refused_by_name() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

        def forward(self, x: Tensor) -> Any:
            return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=True)

    net = fa.DFA(nn.Sequential(nn.Linear(4, 6), Block(), Block(), nn.Linear(6, 3)).double(), points=("1", "2"))
    with pytest.raises(PointsError, match=r"'2' gives an activation without a gradient.*use_reentrant=False"):
        net(X)
