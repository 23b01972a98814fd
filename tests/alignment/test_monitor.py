"""The monitor measures what the functions measure, when it is due, and leaves training as it is, to the bit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, DataError

Trained = tuple[dict[str, Tensor], Tensor]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 5, generator=generator), torch.randint(3, (60,), generator=generator)


def network() -> nn.Sequential:
    """Everything that a forward pass could disturb: batch statistics, dropout, in-place activations."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 6), nn.Tanh(),
        nn.Dropout(0.3), nn.Linear(6, 3),
    )  # fmt: skip


def train(rule: Any, monitored: bool, steps: int = 25, **options: Any) -> tuple[Trained, fa.AlignmentMonitor]:
    x, y = data()
    net = rule(network(), seed=2)
    monitor = fa.AlignmentMonitor(net, functional.cross_entropy, x[:20], y[:20], **options)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    torch.manual_seed(3)
    for step in range(steps):
        if monitored:
            monitor(step)
        batch = torch.randint(60, (10,))
        optimizer.zero_grad()
        functional.cross_entropy(net(x[batch]), y[batch]).backward()
        if monitored:  # also between the backward pass and the optimiser's step
            monitor(step)
        optimizer.step()
    return ({name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()), monitor


@pytest.mark.parametrize(
    "rule", [fa.DFA, fa.FA, fa.Backprop, fa.ConditionedDFA, fa.DirectKolenPollack, fa.SignSymmetry]
)
@pytest.mark.parametrize("at", ["preactivation", "parameters"])
def test_training_runs_to_the_same_bits_with_and_without_it(rule: Any, at: Any) -> None:
    options: dict[str, Any] = {"every": 3, "at": at, "conditioning": rule in (fa.DFA, fa.DirectKolenPollack)}
    (with_it, random_with), monitor = train(rule, True, **options)
    (without, random_without), _ = train(rule, False, **options)
    assert len(monitor.records) == 18
    assert torch.equal(random_with, random_without)
    assert with_it.keys() == without.keys()
    assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_modes_and_gradients_stay() -> None:
    x, y = data()
    net = fa.DFA(network(), seed=2)
    net.model.get_submodule("3").eval()
    modes = [module.training for module in net.modules()]
    functional.cross_entropy(net(x), y).backward()
    gradients = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    fa.AlignmentMonitor(net, functional.cross_entropy, x, y).measure(0)
    assert [module.training for module in net.modules()] == modes
    after = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(after, gradients, strict=True))


def test_it_measures_what_the_functions_measure_in_evaluation_mode() -> None:
    x, y = data()
    net = fa.DFA(network(), seed=2)
    record = fa.AlignmentMonitor(net, functional.cross_entropy, x, y, conditioning=True).measure(7)
    net.eval()
    gradient = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    assert record.step == 7
    assert record.gradient is not None
    assert record.gradient.layers == gradient.layers
    assert record.weight.layers == fa.weight_alignment(net).layers
    assert record.scalars["gradient_alignment/3"] == gradient.layers["3"]
    assert record.scalars["norm_ratio/6"] == gradient.norm_ratios["6"]
    found = fa.conditioning(net, functional.cross_entropy, x, y)
    assert record.scalars["condition_number/error"] == found.error.condition_number


def test_a_sequential_rule_has_weight_alignment_alone() -> None:
    x, y = data()
    record = fa.AlignmentMonitor(fa.FA(network(), seed=2), functional.cross_entropy, x, y).measure(0)
    assert record.gradient is None
    assert all(name.startswith("weight_alignment/") for name in record.scalars)


@pytest.mark.parametrize(
    ("every", "expected"),
    [(4, [0, 4, 8, 12, 16, 20, 24]), ("log", [*range(11), 13, 16, 20])],
)
def test_when_it_is_due(every: Any, expected: list[int]) -> None:
    x, y = data()
    monitor = fa.AlignmentMonitor(fa.DFA(network(), seed=2), functional.cross_entropy, x, y, every=every)
    assert [step for step in range(25) if monitor(step) is not None] == expected
    assert [record.step for record in monitor.records] == expected


def test_log_spaced_steps_are_ten_a_decade() -> None:
    x, y = data()
    monitor = fa.AlignmentMonitor(fa.DFA(network(), seed=2), functional.cross_entropy, x, y, every="log")
    due = [step for step in range(1001) if monitor(step) is not None]
    assert len([step for step in due if 100 < step <= 1000]) == 10
    assert {0, 1, 10, 100, 1000} <= set(due)


def test_rows_go_to_a_file_that_can_be_gone_on_with(tmp_path: Path) -> None:
    x, y = data()
    net, file = fa.DFA(network(), seed=2), tmp_path / "alignment.csv"
    fa.AlignmentMonitor(net, functional.cross_entropy, x, y, csv_file=file).measure(0)
    record = fa.AlignmentMonitor(net, functional.cross_entropy, x, y, csv_file=file).measure(5)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "5"]
    assert {name: float(value) for name, value in rows[1].items() if name != "step"} == record.scalars
    other = fa.AlignmentMonitor(net, functional.cross_entropy, x, y, csv_file=file, conditioning=True)
    with pytest.raises(DataError, match="choose another file"):
        other.measure(6)
    with pytest.raises(DataError, match="cannot write"):
        fa.AlignmentMonitor(net, functional.cross_entropy, x, y, csv_file=tmp_path / "no" / "folder.csv").measure(0)


def test_a_writer_gets_every_number() -> None:
    class Writer:
        def __init__(self) -> None:
            self.got: dict[str, tuple[float, int]] = {}

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            self.got[tag] = (scalar_value, global_step)

    x, y = data()
    writer = Writer()
    record = fa.AlignmentMonitor(fa.DFA(network(), seed=2), functional.cross_entropy, x, y, writer=writer).measure(3)
    assert writer.got == {tag: (value, 3) for tag, value in record.scalars.items()}


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    x, y = data()
    with SummaryWriter(str(tmp_path)) as writer:
        monitor = fa.AlignmentMonitor(fa.DFA(network(), seed=2), functional.cross_entropy, x, y, every=2, writer=writer)
        for step in range(5):
            monitor(step)
    events = EventAccumulator(str(tmp_path)).Reload()
    for tag, value in monitor.records[-1].scalars.items():
        assert [event.step for event in events.Scalars(tag)] == [0, 2, 4]
        assert events.Scalars(tag)[-1].value == pytest.approx(value, rel=1e-6)


def test_half_precision_and_autocast() -> None:
    x, y = data()
    net = fa.DFA(fa.networks.MLP([5, 8, 6, 3], seed=0), seed=2)
    expected = fa.gradient_alignment(net, functional.cross_entropy, x, y).layers
    with torch.autocast("cpu", dtype=torch.bfloat16):
        record = fa.AlignmentMonitor(net, functional.cross_entropy, x, y).measure(0)
    assert record.gradient is not None
    assert record.gradient.layers == expected
    half = fa.AlignmentMonitor(net.bfloat16(), functional.cross_entropy, x.bfloat16(), y).measure(0)
    assert half.gradient is not None
    assert half.gradient.layers == pytest.approx(expected, abs=0.05)


def test_bad_arguments() -> None:
    x, y = data()
    for every in (0, -1, 1.5, "linear"):
        with pytest.raises(ArgumentError, match="every must be a whole number of at least 1"):
            fa.AlignmentMonitor(fa.DFA(network()), functional.cross_entropy, x, y, every=every)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="expected a model wrapped in a rule"):
        fa.AlignmentMonitor(network(), functional.cross_entropy, x, y)  # type: ignore[arg-type]
    net = fa.DFA(network(), feedback=fa.feedback.Aligned())
    with pytest.raises(ArgumentError, match="the feedback is not drawn yet"):
        fa.AlignmentMonitor(net, functional.cross_entropy, x, y).measure(0)


@pytest.mark.parametrize("rule", [fa.DFA, fa.FA, fa.SignSymmetry, fa.KolenPollack, fa.DirectKolenPollack, fa.Backprop])
def test_the_probe_shows_the_shapes_where_no_pass_has_been_made_yet(rule: Any) -> None:
    """A network that begins with a convolution does not tell the shapes at its points."""

    def make(**options: Any) -> Any:
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
        return rule(
            nn.Sequential(*layers), "auto" if issubclass(rule, fa.rules.SequentialRule) else ("1", "3"), **options
        )

    x, y = torch.randn(7, 1, 5, 5, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    net = make()
    assert not net.drawn
    random = torch.get_rng_state()
    found = fa.AlignmentMonitor(net, functional.cross_entropy, x, y).measure(0)
    assert torch.equal(torch.get_rng_state(), random)
    expected = fa.AlignmentMonitor(make(example_input=x), functional.cross_entropy, x, y).measure(0)
    assert found.scalars == expected.scalars
    assert found.weight.layers
