"""The exact identities of rules that pass the error down layer by layer, and of learned feedback."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, batch, gradients, hooks_on, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError, PointsError


def test_feedback_alignment_written_out() -> None:
    """δ_2 = (B_3 δ_3) ⊙ g'(a_2), δ_1 = (B_2 δ_2) ⊙ g'(a_1), ΔW_l = δ_l h_{l−1}ᵀ."""
    model, (x, y) = network(5, 8, 6, 3), batch()
    net = fa.FA(model)
    found = gradients(net, x, y)
    with torch.no_grad():
        h1 = torch.tanh(x @ model[0].weight.T + model[0].bias)
        h2 = torch.tanh(h1 @ model[2].weight.T + model[2].bias)
        d3 = ((h2 @ model[4].weight.T + model[4].bias).softmax(-1) - functional.one_hot(y, 3)) / len(y)
        d2 = d3 @ net.feedback_matrices["4"].T * (1 - h2**2)
        d1 = d2 @ net.feedback_matrices["2"].T * (1 - h1**2)
    for name, delta, below in (("4", d3, h2), ("2", d2, h1), ("0", d1, x)):
        torch.testing.assert_close(found[f"{name}.weight"], delta.T @ below, **EXACT)
        torch.testing.assert_close(found[f"{name}.bias"], delta.sum(0), **EXACT)


def test_matrices_are_fan_in_by_outputs_for_all_layers_but_the_first() -> None:
    net = fa.FA(network(5, 8, 6, 3))
    assert net.points == ("2", "4")
    assert {name: tuple(B.shape) for name, B in net.feedback_matrices.items()} == {"2": (8, 6), "4": (6, 3)}
    assert {"feedback.2", "feedback.4"} < set(net.state_dict())
    assert len(list(net.parameters())) == 6


@pytest.mark.parametrize("rule", [fa.FA, fa.KolenPollack])
def test_with_the_transposed_weights_it_is_backprop(rule: Any) -> None:
    model, (x, y) = network(5, 8, 6, 3), batch()
    true = gradients(model, x, y)
    for name, gradient in gradients(rule(model, feedback=fa.feedback.Aligned()), x, y).items():
        torch.testing.assert_close(gradient, true[name], **EXACT)


def test_signs_with_the_weights_own_magnitudes_are_backprop() -> None:
    model, (x, y) = network(5, 8, 6, 3), batch()
    true = gradients(model, x, y)
    net = fa.SignSymmetry(model, feedback=fa.feedback.Aligned(), magnitude="fixed")
    assert all((M >= 0).all() for M in net.feedback_matrices.values())
    for name, gradient in gradients(net, x, y).items():
        torch.testing.assert_close(gradient, true[name], **EXACT)


def test_uniform_signs_have_one_size() -> None:
    net = fa.SignSymmetry(network(5, 16, 6, 3))
    assert torch.equal(net.feedback_matrices["2"], torch.full((16, 6), 0.25, dtype=torch.float64))


def test_batchwise_magnitudes_are_new_each_batch_and_resume_with_the_state() -> None:
    x, y = batch()
    net = fa.SignSymmetry(network(5, 8, 6, 3), magnitude="batchwise")
    random = torch.get_rng_state()
    one = gradients(net, x, y)
    state = copy.deepcopy(net.state_dict())
    two = gradients(net, x, y)
    assert not torch.equal(one["0.weight"], two["0.weight"])
    resumed = fa.SignSymmetry(network(5, 8, 6, 3, seed=9), seed=9, magnitude="batchwise")
    resumed.load_state_dict(state)
    assert torch.equal(gradients(resumed, x, y)["0.weight"], two["0.weight"])
    assert torch.equal(torch.get_rng_state(), random)


def test_kolen_pollack_forgets_where_its_feedback_began() -> None:
    """Under plain SGD with the same rates B − Wᵀ shrinks by 1 − ηλ every step, whatever the data."""
    lr, decay = 0.1, 0.5
    model = network(5, 8, 6, 3)
    net = fa.KolenPollack(model, lr=lr, weight_decay=decay)
    before = {name: B - model.get_submodule(name).weight.T for name, B in net.feedback_matrices.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, weight_decay=decay)
    for step in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(net(batch(4, step)[0]), batch(4, step)[1]).backward()
        optimizer.step()
    for name, B in net.feedback_matrices.items():
        after = B - model.get_submodule(name).weight.T
        torch.testing.assert_close(after.detach(), (1 - lr * decay) ** 20 * before[name].detach(), **EXACT)


def test_direct_kolen_pollack_of_the_last_hidden_layer_follows_the_readout() -> None:
    lr, decay = 0.1, 0.5
    model = network(5, 8, 6, 3)
    net = fa.DirectKolenPollack(model, lr=lr, weight_decay=decay, centred=False)
    before = (net.feedback_matrices["3"] - model[4].weight.T).detach()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, weight_decay=decay)
    for step in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(net(batch(4, step)[0]), batch(4, step)[1]).backward()
        optimizer.step()
    after = (net.feedback_matrices["3"] - model[4].weight.T).detach()
    torch.testing.assert_close(after, (1 - lr * decay) ** 20 * before, **EXACT)


@pytest.mark.parametrize("rule", [fa.KolenPollack, fa.DirectKolenPollack])
def test_feedback_is_learned_in_every_backward_pass_and_in_no_other(rule: Any) -> None:
    x, y = batch()
    net = rule(network(5, 8, 6, 3))
    start = {name: F.clone() for name, F in net.feedback_matrices.items()}
    with net.backprop():
        functional.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        net(x)
    assert all(torch.equal(F, start[name]) for name, F in net.feedback_matrices.items())
    functional.cross_entropy(net(x), y).backward()
    once = {name: F.clone() for name, F in net.feedback_matrices.items()}
    functional.cross_entropy(net(x), y).backward()
    for name, F in net.feedback_matrices.items():
        assert not torch.equal(once[name], start[name])
        assert not torch.equal(F, once[name])
        assert not F.requires_grad


def test_a_centred_batch_of_one_teaches_the_feedback_nothing() -> None:
    net = fa.DirectKolenPollack(network(5, 8, 6, 3), weight_decay=0)
    start = {name: F.clone() for name, F in net.feedback_matrices.items()}
    gradients(net, *batch(1))
    assert all(torch.equal(F, start[name]) for name, F in net.feedback_matrices.items())


@pytest.mark.parametrize("rule", [fa.FA, fa.SignSymmetry, fa.KolenPollack])
def test_within_backprop_and_bare_the_model_is_its_own(rule: Any) -> None:
    model, (x, y) = network(5, 8, 6, 3), batch()
    true = gradients(model, x, y)
    net = rule(model)
    with net.backprop():
        inside = gradients(net, x, y)
    for name, gradient in {**gradients(model, x, y), **inside}.items():
        torch.testing.assert_close(gradient, true[name], rtol=0, atol=0)
    assert net.unwrap() is model
    assert hooks_on(model) == []


def test_a_layer_that_runs_twice_gets_its_feedback_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.loop, self.last = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.last(self.loop(self.loop(self.first(x).tanh()).tanh()).tanh())

    x, y = batch()
    for rule in (fa.FA, fa.KolenPollack):
        net = rule(Twice(), example_input=x.float())
        assert net.points == ("loop", "last")
        check = fa.check_rule(net, functional.cross_entropy, x, y)
        assert max(error for name, error in check.errors.items() if not name.startswith("feedback")) < 1e-12


def test_a_residual_network_with_embeddings() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(5, 4), nn.Embedding(3, 4)
            self.norm, self.up, self.down, self.head = (
                nn.LayerNorm(4),
                nn.Linear(4, 6),
                nn.Linear(6, 4),
                nn.Linear(4, 3),
            )

        def forward(self, x: Tensor) -> Any:
            h = self.token(x) + self.place(torch.arange(3))
            return self.head(h + self.down(self.up(self.norm(h)).relu()))[:, -1]

    x, y = torch.randint(5, (4, 3)), torch.tensor([0, 1, 2, 0])
    net = fa.FA(Tokens(), example_input=x)
    assert net.points == ("up", "down", "head")
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12


def test_points_that_are_no_layers_are_named() -> None:
    x = torch.ones(2, 5)
    with pytest.raises(PointsError, match=r"'1', a Tanh, cannot be replaced.*of this model that are known: '0', '2'$"):
        fa.FA(fa.networks.MLP([5, 4, 3]), points=("1",))
    with pytest.raises(PointsError, match="found no layer to send the error back through: 1 modules"):
        fa.FA(nn.Sequential(nn.Linear(5, 4)), example_input=x)
    with pytest.raises(PointsError, match=r"'1', a LSTM, cannot be replaced: its class is none .*linear_layer\(LSTM, "):
        fa.FA(nn.Sequential(nn.Linear(5, 4), nn.LSTM(4, 3)), points=("1",), example_input=x)


def test_a_loaded_matrix_of_another_shape_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    net = fa.FA(model)
    net.load_state_dict({**net.state_dict(), "feedback.3": torch.zeros(9, 3)})
    with pytest.raises(
        FeedbackShapeError, match=r"feedback of '3' has shape \(9, 3\), expected \(8, 3\), features by outputs"
    ):
        net(torch.zeros(2, 1, 4, 4))


def test_alignment_is_that_of_weights_with_what_replaces_them() -> None:
    model = network(5, 8, 6, 3)
    assert fa.weight_alignment(fa.FA(model, feedback=fa.feedback.Aligned())).total == pytest.approx(1)
    measured = fa.weight_alignment(fa.FA(model))
    assert set(measured.layers) == {"2", "4"}
    assert abs(measured.total) < 0.9
    ensemble = fa.weight_alignment(fa.FA(fa.networks.EnsembleMLP(3, [5, 8, 6, 3])))
    assert ensemble.per_network["2"].shape == (3,)
    with pytest.raises(ArgumentError, match="FA sends no error straight from the output to a layer"):
        fa.gradient_alignment(fa.FA(model), functional.cross_entropy, *batch())  # type: ignore[arg-type]


# Torch's own tracing of an autograd function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_without_graph_breaks() -> None:
    x, y = batch()
    net = fa.FA(network(5, 8, 6, 3))
    expected = gradients(net, x, y)
    compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert_same(gradients(compiled, x, y), expected, **EXACT)


@pytest.mark.parametrize("rule", [fa.KolenPollack, fa.DirectKolenPollack])
def test_rates_are_checked(rule: Any) -> None:
    with pytest.raises(ArgumentError, match="lr must be a finite number of at least 0, got -1"):
        rule(network(5, 8, 3), lr=-1, weight_decay=0)
    with pytest.raises(ArgumentError, match=r"lr=2.*their product, the decay of one step, must be at most 1"):
        rule(network(5, 8, 3), lr=2, weight_decay=1)


def test_magnitudes_are_checked() -> None:
    with pytest.raises(ArgumentError, match="magnitude='other' is unknown; expected one of uniform"):
        fa.SignSymmetry(network(5, 8, 3), magnitude="other")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="entries of several sizes"):
        fa.SignSymmetry(network(5, 8, 3), feedback=fa.feedback.Gaussian())
