"""`feedalign theory`: what it prints, writes and refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import xarray as xr

from feedalign.cli import main
from feedalign.lab import own_setting
from feedalign.lab.own_setting import TheoryConfig, running
from feedalign.theory import shallow

SHORT = ("--end-time", "20", "--measurements", "12", "--input-dim", "60")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result() -> xr.Dataset:
    (folder,) = Path("runs/theory").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "environment.json", "figure.svg", "result.nc",
    ]  # fmt: skip
    return xr.load_dataset(folder / "result.nc", engine="h5netcdf")


def test_it_prints_a_table_and_writes_what_integrate_gives(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--activation", "relu", "--students", "4", "--teachers", "2", "--lr", "0.2", "--noise-std", "0.1")
    assert main(["theory", *arguments, *SHORT]) == 0
    out = capsys.readouterr().out
    assert "ε_g DFA" in out
    assert "cos(v, F) backprop" in out
    dataset = result()
    config = TheoryConfig(
        activation="relu", students=4, teachers=2, lr=0.2, noise_std=0.1, end_time=20, measurements=12, input_dim=60
    )
    start, F, times = own_setting.prepare(config)
    exact = shallow.integrate(start, feedback=F, lr=0.2, times=times, activation="relu", noise_std=0.1)
    np.testing.assert_array_equal(dataset.generalisation_error_theory.sel(rule="dfa"), exact.generalisation_error)
    np.testing.assert_array_equal(dataset.last_R.sel(rule="dfa"), exact.R[-1])
    assert f"{exact.generalisation_error[-1]:.4g}" in out
    assert f"DFA can{'' if shallow.can_recover(start.A, F) else 'not'} learn this teacher" in out


def test_a_simulation_stands_beside_the_theory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--rules", "dfa", "--simulate", "3", *SHORT]) == 0
    assert "3 simulated runs end at" in capsys.readouterr().out
    dataset = result()
    simulated = dataset.overlap_simulation.sel(rule="dfa")
    assert simulated.sizes["seed"] == 3
    np.testing.assert_allclose(simulated.isel(time=0), float(dataset.overlap_theory[0, 0]))


def test_given_numbers_and_the_predicted_solution(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--readout", "0.8", "1.5", "--feedback", "1.2", "-0.4")
    assert main(["theory", *given, "--end-time", "30000", "--stop-at-error", "1e-6"]) == 0
    out = capsys.readouterr().out
    assert "DFA: nearest global minimum has v = (1.5, -0.8)" in out
    assert "DFA is expected at v = (1.5, -0.8)" in out
    dataset = result()
    assert 1000 < float(dataset.ended_at.sel(rule="dfa")) < 30000
    assert np.isnan(dataset.generalisation_error_theory.sel(rule="dfa")[-1])


def test_the_same_setting_is_not_computed_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["theory", *SHORT]) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(running, "run", lambda *_: pytest.fail("computed again"))
    assert main(["theory", *SHORT]) == 0
    assert capsys.readouterr().out == first


def test_divergence_says_when_and_keeps_the_last_finite_state(capsys: pytest.CaptureFixture[str]) -> None:
    # A linear student with frozen readout explodes for η v F > 2: its steps overshoot.
    alone = ("--students", "1", "--teachers", "1", "--feedback", "1", "--rules", "dfa", "--w-std", "1", "--v-std", "1")
    times = ("--end-time", "1000", "--input-dim", "60", "--simulate", "2")
    assert main(["theory", "--activation", "linear", "--lr-readout", "0", "--lr", "50", *alone, *times]) == 1
    out = capsys.readouterr().out
    assert "DFA: DIVERGED at t = " in out
    assert "a simulated run" not in out, "said once is enough"
    dataset = result().sel(rule="dfa")
    assert dataset.diverged
    assert np.isfinite(dataset.last_Q).all()
    after = dataset.time > dataset.ended_at
    assert np.isnan(dataset.generalisation_error_theory[after]).all()
    assert np.isfinite(dataset.generalisation_error_theory[~after]).all()


@pytest.mark.parametrize(
    "arguments",
    [["--v-std", "1e19"], ["--noise-std", "1e300"], ["--readout", "1e300", "1e300"], ["--lr", "1e300"]],
)
def test_a_start_beyond_all_numbers_diverges_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", *SHORT, *arguments]) == 1
    assert "DIVERGED at t = 0" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--lr", "1e10"], ["--end-time", "50000", "--simulate", "2"]])
def test_what_takes_longer_than_allowed_is_told_and_not_stored(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["theory", *SHORT, *arguments, "--max-seconds", "0.3"]) == 1
    assert "took longer than max_seconds=0.3" in capsys.readouterr().err
    assert not list(Path("runs").rglob("result.nc"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0"], "lr must be a finite number above 0, got 0.0"),
        (["--lr", "nan"], "lr must be a finite number above 0, got nan"),
        (["--noise-std", "-1"], "noise_std must be a finite number of at least 0, got -1.0"),
        (["--end-time", "0"], "end_time=0.0 must be a positive number"),
        (["--lr-readout", "-1"], "lr_readout must be a finite number of at least 0, got -1.0"),
        (["--end-time", "inf"], "end_time=inf must be a positive number"),
        (["--end-time", "1e13"], "end_time=10000000000000.0 must be a positive number, and not beyond 1e+15 steps"),
        (["--measurements", str(10**12)], "measurements must be a whole number of at least 2 and at most 100000"),
        (["--simulate", str(10**12)], "at most 10,000,000,000 can be simulated, so lower one of the three"),
        (["--max-seconds", "0"], "max_seconds must be a finite number above 0, got 0.0"),
        (["--measurements", "1"], "measurements must be a whole number of at least 2"),
        (["--simulate", "-1"], "simulate must be a whole number of at least 0"),
        (["--seed", "-1"], "seed must be a whole number of at least 0"),
        (["--students", "0"], "students must be a whole number of at least 1"),
        (["--teachers", "0"], "teachers must be a whole number of at least 1"),
        (["--input-dim", "3"], "input_dim must be a whole number of at least 4, got 3"),
        (["--readout", "1"], "readout=(1.0,) must be 2 finite numbers, one for each of teachers=2"),
        (["--feedback", "1", "nan"], "feedback=(1.0, nan) must be 2 finite numbers, one for each of students=2"),
        (["--feedback", "orthogonal", "--students", "3"], "needs a feedback vector that is orthogonal to A"),
        (["--runs", "/dev/null/runs"], "runs=/dev/null/runs cannot be written: /dev/null is a file, not a folder"),
        (["--rules"], "rules=() must name dfa, backprop, or both"),
        (["--stop-at-error", "0"], "stop_at_error must be a finite number above 0, got 0.0"),
        (["--batch-size", "0"], "batch_size must be a whole number of at least 1, got 0"),
        (["--input-dim", "4", "--simulate", "2"], "input_dim must be a whole number of at least 5, got 4"),
        (["--rtol", "-1"], "rtol must be a finite number above 0, got -1.0"),
        (["--atol", "nan"], "atol must be a finite number above 0, got nan"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_written(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["theory", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("feedalign: ")
    assert not out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--activation", "tanh"], ["--students", "two"], ["--lr"], ["--learning-rate", "1"], ["--rules", "bp"]],
)
def test_a_wrong_flag_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["theory", *arguments])
    assert stop.value.code == 2


def test_the_kinds_on_offer_are_those_of_the_theory() -> None:
    hints = get_type_hints(TheoryConfig)
    assert get_args(get_args(hints["readout"])[0]) == get_args(shallow.ReadoutKind)
    assert get_args(get_args(hints["feedback"])[0]) == get_args(shallow.FeedbackKind)


def test_it_imports_no_torch() -> None:
    code = (
        f"import sys; from feedalign.cli import main; main({['theory', *SHORT]!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_ends_a_long_simulation_soon(tmp_path: Path) -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from feedalign.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ["theory", "--end-time", "100000", "--measurements", "10", "--simulate", "4"]
    run = subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    assert re.fullmatch(r"theory: 10 %, \d:\d\d:\d\d left\n", run.stderr.readline())
    os.kill(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=20)  # one run alone would take longer
    assert run.returncode == 130
    assert "feedalign: interrupted" in err
    assert not list(tmp_path.glob("runs/theory/*"))


def test_the_same_from_python(tmp_path: Path) -> None:
    config = TheoryConfig(end_time=20, measurements=12, input_dim=60, simulate=2)
    run = own_setting.compute(config, tmp_path / "python")
    assert run.folder.parent == tmp_path / "python/theory"
    assert (run.folder / "figure.svg").is_file()
    assert dict(run.dataset.sizes)["seed"] == 2
    assert run.dataset.rule.values.tolist() == ["dfa", "backprop"]
    for axes in own_setting.plot(run.dataset).axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    heading, rows = own_setting.table(run.dataset, rows=4)
    assert len(rows) == 4
    assert {len(row) for row in rows} == {len(heading)}
    assert not own_setting.diverged(run.dataset)
