"""What `feedalign diagnose` expects, against slow computations; what it names; and its three data sets told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.lab.data import ImageData
from feedalign.lab.experiments import DiagnoseConfig, diagnosis
from feedalign.lab.experiments.diagnosis import expectation
from feedalign.lab.experiments.diagnosis.running import look
from feedalign.theory import linear

Array = NDArray[np.float64]


def diagnosed(**options: Any) -> xr.Dataset:
    setting = diagnosis.prepared(DiagnoseConfig(**options))
    return diagnosis.run(setting, lambda *_: None)


@pytest.fixture(scope="module")
def digits() -> xr.Dataset:
    return diagnosed()


@pytest.fixture(scope="module")
def unbalanced() -> xr.Dataset:
    return diagnosed(repeat=("3=20",))


def outputs_at_fault(dataset: xr.Dataset) -> list[tuple[int, ...]]:
    return [direction.outputs for direction in expectation.directions(dataset.error_moment.values)]


def test_digits_with_one_class_twenty_times_are_told_from_digits(digits: xr.Dataset, unbalanced: xr.Dataset) -> None:
    assert float(digits.error_condition_number) < 1.5
    assert outputs_at_fault(digits) == []
    assert "no output is at fault. Plain feedback will do" in diagnosis.verdict(digits)
    assert float(unbalanced.error_condition_number) > 10
    assert outputs_at_fault(unbalanced) == [(3,)]
    text = "\n".join(diagnosis.before(unbalanced))
    assert "output 3 is over-represented" in text
    verdict = diagnosis.verdict(unbalanced)
    assert "at fault: output 3. Take conditioned feedback, feedalign.ConditionedDFA" in verdict


@pytest.mark.network
def test_mnist_is_told_from_both(mnist: ImageData, digits: xr.Dataset) -> None:
    dataset = diagnosed(dataset="mnist", steps=5, probe=100)
    assert float(dataset.error_condition_number) < 1.5
    assert outputs_at_fault(dataset) == []
    of_inputs = [expectation.directions(each.input_output_moment.values)[0].outputs for each in (dataset, digits)]
    assert set(of_inputs[0]) == {0, 1}
    assert of_inputs[0] != of_inputs[1]


def test_what_is_expected_is_about_what_is_measured_early_on(digits: xr.Dataset) -> None:
    """Of a tanh network with biases, whose theory it is not: to 0.15, where chance is 0 and the measure ends at 0.6."""
    measured = digits.gradient_alignment.sel(net="plain").isel(step=-1).values
    np.testing.assert_allclose(digits.expected_gradient_alignment.sel(sent="plain"), measured, atol=0.15)
    assert (measured > 0.4).all()
    assert np.abs(digits.gradient_alignment.sel(step=0)).max() < 0.15


def test_expected_over_all_samples_is_the_mean_of_what_is_expected_by_output(digits: xr.Dataset) -> None:
    """The classes are of one size to a few per cent, and the untrained error is largest at the sample's class."""
    by_output = digits.expected_by_output.mean("output")
    np.testing.assert_allclose(by_output, digits.expected_gradient_alignment, atol=0.02)


def small(seed: int = 0) -> Any:
    """A deep linear network, a linear teacher, half the squared error; batches of one size, and a shorter last one."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((100, 6))
    y = x @ rng.standard_normal((6, 3)) * [1.0, 0.3, 1.0]
    tensors = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    batches = list(zip(*(each.split(16) for each in tensors), strict=True))
    model = fa.networks.MLP([6, 20, 20, 3], "linear", bias=False)
    return model, lambda output, target: (output - target).square().sum() / 2, batches


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Diagnose what a function returns, as if it stood in a module of one's own."""

    def run(made: Any, **options: Any) -> Any:
        for user in ("own_code", "setting"):
            monkeypatch.setattr(f"feedalign.lab.experiments.diagnosis.{user}.module_of", lambda _: Module(made))
        monkeypatch.setattr("inspect.getsource", lambda _: "")
        return diagnosis.prepared(DiagnoseConfig(model="mine:make", **options))

    class Module:
        def __init__(self, made: Any) -> None:
            self.make = lambda: made() if callable(made) else made

    return run


def test_before_training_it_sees_the_second_moments_written_out(mine: Any) -> None:
    setting = mine(small)
    seen = look(setting)
    model, _, batches = small()
    whole = batches[:-1]  # the last one is shorter
    x, y = (np.concatenate([batch[i].numpy() for batch in whole]).astype(float) for i in (0, 1))
    e = model(torch.from_numpy(x).float()).detach().double().numpy() - y
    np.testing.assert_allclose(seen.errors, e, atol=1e-5)
    np.testing.assert_allclose(seen.cov_yx, y.T @ x / len(x), atol=1e-5)
    assert not seen.isotropic
    dataset = diagnosis.run(setting, lambda *_: None)
    np.testing.assert_allclose(dataset.error_moment, e.T @ e / len(e), atol=1e-5)
    values = np.linalg.svd(y.T @ x / len(x))[1] ** 2
    np.testing.assert_allclose(dataset.input_output_eigenvalue, values, rtol=1e-4)
    assert float(dataset.input_output_condition_number) == pytest.approx(values[0] / values[-1], rel=1e-4)
    F = [matrix.double().numpy() for matrix in setting.net.feedback_matrices.values()]
    state = linear.State(linear.first_steps(seen.cov_yx, F), F)
    expected = state.cosines(e).mean(1)
    np.testing.assert_allclose(dataset.expected_gradient_alignment.sel(sent="plain"), expected, atol=1e-5)


def test_from_small_weights_a_deep_linear_net_has_what_was_expected(mine: Any) -> None:
    """The first steps are those of the theory, so cosines and conditioner agree; here to a few per cent."""

    def made() -> Any:
        model, loss_fn, batches = small()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1e-6)
        x, y = (torch.cat([batch[i] for batch in batches]) for i in (0, 1))
        return model, loss_fn, [(x, y)]

    dataset = diagnosis.run(mine(made, lr=1e-4, steps=40), lambda *_: None)
    for net in ("plain", "conditioned"):
        measured = dataset.gradient_alignment.sel(net=net).isel(step=-1)
        np.testing.assert_allclose(dataset.expected_gradient_alignment.sel(sent=net), measured, atol=0.05)
    np.testing.assert_allclose(dataset.residual, 0, atol=0.02)


def test_the_conditioner_is_that_of_the_rule_on_many_errors() -> None:
    rng = np.random.default_rng(0)
    errors = rng.standard_normal((50_000, 3)) * [1, 0.3, 0.1]
    net = fa.ConditionedDFA(fa.networks.MLP([4, 8, 3]).double())
    net(torch.zeros(50_000, 4, dtype=torch.float64)).backward(torch.from_numpy(errors))
    # The rule adds three white errors.
    np.testing.assert_allclose(expectation.conditioner(errors), net.conditioner.numpy(), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(
    ("alpha", "beta", "outputs", "correlation", "times"),
    [(0.2, 1, [(0,), (1,)], np.nan, 1.5), (1, 0.2, [(0, 1), (0, 1)], 0.8, 1.3)],
)
def test_directions_and_steps_on_two_outputs(
    alpha: float, beta: float, outputs: Any, correlation: float, times: float
) -> None:
    covariance = np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])
    found = expectation.directions(covariance)
    assert [tuple(sorted(direction.outputs)) for direction in found] == outputs
    assert found[0].factor > 2 > 0.5 > found[1].factor
    np.testing.assert_allclose([direction.correlation for direction in found], correlation)
    F = linear.draw_feedback([100, 100, 100], 2, np.random.default_rng(0))
    plain, conditioned = expectation.predicted_steps(covariance, F)
    assert plain > times * conditioned
    white = expectation.predicted_steps(np.eye(2) * 7, F)
    assert white[0] == white[1]


def test_predicted_steps_know_no_scale_of_outputs_or_feedback() -> None:
    rng = np.random.default_rng(0)
    F = linear.draw_feedback([50, 50], 3, rng)
    moment = np.real(sqrtm(np.diag([9.0, 1.0, 4.0])))
    base = expectation.predicted_steps(moment, F)
    np.testing.assert_array_equal(expectation.predicted_steps(1e-6 * moment, [10 * matrix for matrix in F]), base)


def test_equal_outputs_have_no_direction_to_name() -> None:
    e = 0.1 - np.eye(10)  # of a softmax, untrained, over balanced classes
    assert expectation.directions(e.T @ e / 10) == []
    spectrum = expectation.spectrum(e.T @ e / 10)
    assert spectrum.rank == 9
    assert spectrum.condition_number == pytest.approx(1)
    assert spectrum.effective_rank == pytest.approx(9)


class Images(nn.Module):
    """Convolutions have no matrix along the feedback; indices are no vectors."""

    def __init__(self, embedded: bool) -> None:
        super().__init__()
        self.first: nn.Module = nn.Embedding(20, 16) if embedded else nn.Conv2d(1, 2, 3)
        self.act, self.readout = nn.Tanh(), nn.Linear(4 * 16 if embedded else 2 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.readout(self.act(self.first(x)).flatten(1))
        return output


@pytest.mark.parametrize("embedded", [False, True])
def test_layers_without_a_matrix_and_inputs_that_are_no_vectors(mine: Any, embedded: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def made() -> Any:
        x = torch.randint(20, (32, 4), generator=generator) if embedded else torch.randn(32, 1, 6, 6)
        y = torch.randint(3, (32,), generator=generator)
        return Images(embedded), functional.cross_entropy, [(x, y)], ["act"]

    dataset = diagnosis.run(mine(made, steps=3), lambda *_: None)
    assert dataset.attrs["isotropic"] == embedded
    assert ("taken for isotropic" in "\n".join(diagnosis.before(dataset))) == embedded
    heading, rows = diagnosis.table(dataset)
    assert [row[1] for row in rows] == ["act", "readout"] * 2
    assert rows[0][heading.index("residual")] == "–"
    assert "layer act has dashes, since" in "\n".join(diagnosis.notes(dataset))


def test_layers_that_cannot_align_are_named_with_what_would_help(mine: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 3, 16, 16, generator=generator), torch.randint(3, (64,), generator=generator)
    net = fa.networks.ConvNet((3, 16, 16), (4, 6, 8), 3)
    made = (net, functional.cross_entropy, [(x[:32], y[:32]), (x[32:], y[32:])])
    setting = mine(made, steps=3)
    bounds = fa.alignability(setting.net).layers
    dataset = diagnosis.run(setting, lambda *_: None)
    expected = [np.nan, bounds["1.0"].bound, bounds["2.0"].bound, 1.0]
    np.testing.assert_array_equal(dataset.alignability, expected)
    heading, rows = diagnosis.table(dataset)
    assert [row[heading.index("at most")] for row in rows[:4]] == ["–", *(f"{bound:.2f}" for bound in expected[1:])]
    assert f"by at most {expected[1]:.2f} to {expected[2]:.2f}, whatever the training, in layer 1" in diagnosis.verdict(
        dataset
    )
    assert "(with channelwise feedback 0.34)" in diagnosis.verdict(dataset)
    dense = dataset.assign(alignability=dataset.alignability.fillna(1) * 0 + 1)
    assert "at most" not in diagnosis.verdict(dense)


def test_sequences_of_several_lengths_are_taken_for_isotropic(mine: Any) -> None:
    """An error for each entry, and no vectors of one length: the probe is what can be joined of the first batches."""

    def made() -> Any:
        torch.manual_seed(0)
        lengths = (5, 5, 7, 5)
        batches = [(torch.randn(4, length, 3), torch.randint(2, (4, length))) for length in lengths]
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        return model, lambda output, y: functional.cross_entropy(output.flatten(0, 1), y.flatten()), batches

    setting = mine(made, steps=6)
    assert setting.probe[0].shape == (8, 5, 3)
    dataset = diagnosis.run(setting, lambda *_: None)
    assert dataset.attrs["samples"] == 40  # entries of the batches of one shape
    assert dataset.gradient_alignment_by_output.notnull().all()
    pooled = mine(lambda: (Pooled(), functional.cross_entropy, [(x, y[:, 0]) for x, y in made()[2]], ["act"]), steps=2)
    assert diagnosis.run(pooled, lambda *_: None).attrs["isotropic"] == 1


class Pooled(nn.Module):
    """One output for a sequence of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.readout = nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.readout(self.act(self.first(x.mean(1))))
        return output


class Loop(nn.Module):
    """A cell that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.act, self.readout = nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x
        for _ in range(3):
            h = self.act(self.cell(h) + x)
        output: torch.Tensor = self.readout(h)
        return output


def test_a_point_that_runs_several_times_is_one_layer(mine: Any) -> None:
    _, loss_fn, batches = small()
    dataset = diagnosis.run(mine((Loop(), loss_fn, batches, "act"), steps=3, lr=1e-3), lambda *_: None)
    assert dataset.layer.values.tolist() == ["act", "readout"]
    assert dataset.gradient_alignment.notnull().all()


def test_a_wrapped_model_is_taken_with_its_own_feedback(mine: Any) -> None:
    model, loss_fn, batches = small()
    net = fa.ConditionedDFA(model, feedback=fa.feedback.Orthogonal(), seed=5)
    setting = mine((net, loss_fn, batches), steps=3, lr=1e-3)
    assert list(setting.nets.values()) == [net]
    dataset = diagnosis.run(setting, lambda *_: None)
    assert dataset.as_sent.values.tolist() == ["conditioned"]
    assert dataset.net.values.tolist() == ["ConditionedDFA"]
    diagnosis.plot(dataset)


def test_a_run_is_known_by_what_the_code_made_and_leaves_the_random_state(mine: Any) -> None:
    torch.manual_seed(4)
    state = torch.get_rng_state()
    first, again = (mine(small).identity for _ in range(2))
    other = mine(lambda: (small(1)[0], *small()[1:])).identity
    loss = mine(lambda: (small()[0], lambda o, t: 2 * small()[1](o, t), small()[2])).identity
    assert first == again
    assert first != loss
    assert first.digest != mine(small, seed=3).identity.digest  # its feedback is another
    assert isinstance(other.digest, str)
    assert torch.equal(torch.get_rng_state(), state)


def test_divergence_is_kept_and_told(mine: Any) -> None:
    dataset = diagnosis.run(mine(small, lr=10.0), lambda *_: None)
    assert diagnosis.diverged(dataset)
    assert (dataset.diverged_at < 50).all()
    assert "DIVERGED after" in diagnosis.verdict(dataset)
    diagnosis.table(dataset)
    diagnosis.plot(dataset)
