"""The advice on ConditionedDFA, held against what both rules then do on a small grid of data sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign.diagnosis.words import FASTER, SLOWER, WELL_CONDITIONED
from feedalign.lab.data import load, prepare

Loss = Callable[[Any, Any], Tensor]


def squared(output: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = (output - target).square().sum(1).mean() / 2
    return loss


def whitened(x: Tensor) -> Tensor:
    """Inputs with the identity as covariance, in the directions that hold anything."""
    centred = x.double() - x.double().mean(0)
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    white: Tensor = (left[:, singular > 1e-2 * singular[0]] * len(x) ** 0.5).float()
    return white


def repeated(x: Tensor, y: Tensor, repeats: dict[int, int]) -> tuple[Tensor, Tensor]:
    times = torch.tensor([repeats.get(label, 1) for label in range(10)])
    indices = torch.arange(len(x)).repeat_interleave(times[y])
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))
    return x[indices[order]], y[indices[order]]


def grid() -> Iterator[tuple[str, Tensor, Tensor, int, Loss]]:
    """Yield (name, inputs, targets, outputs, loss function)."""
    data = load("digits")
    pixels, labels = prepare(data)[0], data.train_labels
    for name, x in {"digits": pixels, "white digits": whitened(pixels)}.items():
        for repeats in ({}, {3: 5}, {3: 20}, {0: 10, 1: 10}):
            yield f"{name}, {repeats}", *repeated(x, labels, repeats), 10, functional.cross_entropy
    one_hot = functional.one_hot(labels, 10) - 0.1
    correlated = torch.linalg.cholesky(torch.full((10, 10), 0.8) + 0.2 * torch.eye(10)).T
    unequal = torch.tensor([1.0] * 5 + [0.3] * 5).diag()
    for name, mix in {"correlated": correlated, "unequal": unequal}.items():
        yield f"digits, {name} targets", pixels, one_hot @ mix, 10, squared
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 20, generator=generator)
    y = x @ torch.randn(20, 4, generator=generator) / 20**0.5
    mixes = {
        "equal": torch.eye(4),
        "correlated": torch.linalg.cholesky(torch.full((4, 4), 0.8) + 0.2 * torch.eye(4)).T,
        "unequal": torch.tensor([1, 1, 0.3, 0.3]).diag(),
    }
    for name, mix in mixes.items():
        yield f"linear teacher, {name} targets", x, y @ mix, 4, squared


Found = dict[tuple[str, float], tuple[fa.Diagnosis, fa.Diagnosis]]


@pytest.fixture(scope="module")
def diagnosed() -> Found:
    """Every data set at two learning rates: diagnosed without and with the comparison."""
    found = {}
    for name, x, y, outputs, loss in grid():
        batches = list(zip(x.split(32), y.split(32), strict=True))
        model = fa.networks.MLP([x.shape[1], 50, 50, outputs])
        for lr in (0.1, 0.03):
            both = fa.diagnose(model, loss, batches, compare=True, steps=200, lr=lr, probe=500, samples=2000)
            found[name, lr] = replace(both, trained={"dfa": both.trained["dfa"]}), both
    return found


def test_where_it_says_that_little_will_change_little_changes(diagnosed: Found) -> None:
    well = [both for alone, both in diagnosed.values() if "will change little" in alone.advice]
    assert len(well) == 4  # two balanced sets of classes at two learning rates
    for both in well:
        assert SLOWER < both.speedup < FASTER
        assert "gained nothing" in both.advice


def test_where_it_says_may_help_or_harm_all_three_happen(diagnosed: Found) -> None:
    badly = [both for alone, both in diagnosed.values() if "may help or harm" in alone.advice]
    assert all(both.errors.spectrum.condition_number > WELL_CONDITIONED for both in badly)
    assert len(badly) == len(diagnosed) - 4
    words = {re.findall("faster|slower|gained nothing", both.advice)[0] for both in badly}
    assert words == {"faster", "slower", "gained nothing"}


def test_once_compared_it_says_what_the_losses_say(diagnosed: Found) -> None:
    """At the step at which the faster rule was as low as both became, the other one was still higher."""
    for _, both in diagnosed.values():
        plain, conditioned = (both.trained[name] for name in ("dfa", "conditioned-dfa"))
        assert "may" not in both.advice
        lowest = max(plain.losses.min(), conditioned.losses.min())
        first = [int(np.argmax(net.losses <= lowest)) for net in (plain, conditioned)]
        if "faster" in both.advice:
            assert first[1] < first[0]
            assert plain.losses[: first[1] + 1].min() > lowest
            assert "Use it." in both.advice
        if "slower" in both.advice:
            assert first[0] < first[1]
            assert conditioned.losses[: first[0] + 1].min() > lowest
            assert "Use plain DFA." in both.advice


def test_the_documentation_counts_them_right(diagnosed: Found) -> None:
    advice = [both.advice for alone, both in diagnosed.values() if "may help or harm" in alone.advice]
    counts = [sum(word in each for each in advice) for word in ("faster", "slower", "gained nothing")]
    page = Path(__file__).parents[2].joinpath("docs/how-to/will-it-align.md").read_text(encoding="utf-8")
    sentence = (
        r"Of the (\d+) badly conditioned runs, it was faster in (\d+), slower in (\d+), and gained nothing in (\d+)"
    )
    told = re.search(sentence, " ".join(page.split()))
    assert told is not None
    assert [int(number) for number in told.groups()] == [len(advice), *counts]
    speed = [both.speedup for alone, both in diagnosed.values() if "may help or harm" in alone.advice]
    sentence = r"it gained was a factor of ([\d.]+), and the most it lost was a factor of ([\d.]+)\. "
    most = re.search(sentence, " ".join(page.split()))
    assert most is not None
    assert most.groups() == (f"{max(speed):.1f}", f"{1 / min(speed):.1f}")


def test_the_documentation_tells_how_far_off_the_expectation_was(diagnosed: Found) -> None:
    page = Path(__file__).parents[2].joinpath("docs/how-to/will-it-align.md").read_text(encoding="utf-8")
    sentence = (
        r"measured alignment by up to ([\d.]+), and in the (\d+) runs below, layer by layer, by up to ([\d.]+)\. "
    )
    told = re.search(sentence, " ".join(page.split()))
    assert told is not None
    rows = [line.split()[2:6] for line in page.splitlines() if re.match(r"(conditioned-)?dfa +\d+ +[+-]\d", line)]
    in_tables = max(abs(float(row[i]) - float(row[i + 2])) for row in rows for i in (0, 1))
    in_runs = max(
        np.abs(alone.expected["plain"].gradient_alignment - alone.trained["dfa"].gradient_alignment[-1]).max()
        for alone, _ in diagnosed.values()
    )
    assert told.groups() == (f"{in_tables:.2f}", str(len(diagnosed)), f"{in_runs:.2f}")


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
def test_speedup_of_curves_of_known_speed(times: float) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    found = fa.diagnose(fa.networks.MLP([4, 5, 2]), squared, [(x, x[:, :2])], compare=True, steps=100)
    steps = np.array(found.trained["dfa"].loss_steps)
    for name, rate in {"dfa": 0.01, "conditioned-dfa": 0.01 * times}.items():
        found.trained[name] = replace(found.trained[name], losses=np.exp(-rate * steps))
    assert found.speedup == pytest.approx(times, rel=1e-3)
