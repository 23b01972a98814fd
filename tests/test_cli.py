"""The command line: exit status, what it says, and that it runs nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from tests.cases.experiments import ERRORS, Config, Failing, Parabola, Point

from feedalign.cli import main
from feedalign.lab import reproduction
from feedalign.lab.experiments import CLAIMS, DATASETS, Verdict
from feedalign.lab.runs import Desk

NAMES = ("two-phases", "layerwise")
Main = Callable[..., int]
Experiments = dict[str, Parabola]


def checked(*effects: float) -> Callable[[xr.Dataset], list[Verdict]]:
    return lambda dataset: [Verdict("positive", effect, 0.1, 0.0, "above", "a seed", runs=5) for effect in effects]


@pytest.fixture
def experiments(monkeypatch: pytest.MonkeyPatch) -> Experiments:
    """Experiments that take no time and are supported, in place of two real ones."""
    on_dataset = {name: dict.fromkeys(("quick", "paper"), Config(4, name)) for name in ("mnist", "digits")}
    found = {
        "two-phases": Parabola("two-phases"),
        "layerwise": Parabola("layerwise", CONFIGS={"quick": Config(5)}, ON_DATASET=on_dataset),
    }
    for experiment in found.values():
        monkeypatch.setattr(experiment, "check", checked(1.0, 2.0))
    monkeypatch.setattr(reproduction, "get", found.__getitem__)
    monkeypatch.setattr(reproduction, "NAMES", NAMES)
    monkeypatch.setattr(reproduction, "DATASETS", {"layerwise": DATASETS["layerwise"]})
    return found


@pytest.fixture
def reproduce(experiments: Experiments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """`feedalign reproduce` in a folder of its own and, unless told otherwise, in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: main(["reproduce", "--workers", "1", *args])


def refuse(*args: object) -> xr.Dataset:
    raise AssertionError("ran again")


def test_reproduce_runs_checks_and_reports_everything(
    reproduce: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce() == 0
    out, err = capsys.readouterr()
    assert "2 of 2 claims supported; report: feedalign-report.html" in out
    assert out.count("supported: positive: 1 [0.722, 1.28], expected above 0, 5 independent runs") == 2
    assert "100 %" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["feedalign-report.html", "runs"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted([*NAMES, Point.kind])
    page = (tmp_path / "feedalign-report.html").read_text(encoding="utf-8")
    assert all(f"feedalign reproduce {name} --preset quick" in page for name in NAMES)


def test_a_finished_run_is_not_run_again(
    reproduce: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce("two-phases") == 0
    monkeypatch.setattr(Point, "compute", refuse)
    assert reproduce("two-phases") == 0
    with pytest.raises(AssertionError, match="ran again"):
        reproduce("two-phases", "--runs", "elsewhere")


def test_the_printed_command_repeats_the_run(reproduce: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the page says to type is found as the run it stands beside."""
    assert reproduce("layerwise", "--dataset", "digits") == 0
    page = (tmp_path / "feedalign-report.html").read_text(encoding="utf-8")
    command = page.split('<code class="command">feedalign ')[1].split("</code>")[0]
    assert command == "reproduce layerwise --preset quick --dataset digits"
    monkeypatch.setattr(Point, "compute", refuse)
    assert main(command.split()) == 0


def test_runs_and_report_go_where_they_are_told(reproduce: Main, tmp_path: Path) -> None:
    assert reproduce("two-phases", "--runs", "a/b", "--report", "c/d.html") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
    assert (tmp_path / "c/d.html").is_file()
    assert (tmp_path / "a/b/two-phases").is_dir()


def test_a_data_set_without_a_name_means_the_experiments_that_take_it(reproduce: Main, tmp_path: Path) -> None:
    assert reproduce("--dataset", "digits") == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["layerwise", Point.kind]


@pytest.mark.parametrize("effect", [-1.0, float("nan")])
def test_a_claim_that_is_not_supported_gives_status_1(
    reproduce: Main,
    experiments: Experiments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    effect: float,
) -> None:
    monkeypatch.setattr(experiments["two-phases"], "check", checked(1.0, effect))
    assert reproduce("two-phases") == 1
    out = capsys.readouterr().out
    assert "0 of 1 claims supported" in out
    assert "  not supported: positive" in out
    assert "not supported" in (tmp_path / "feedalign-report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["reproduce", "three-phases"],
            "no experiment is called 'three-phases'; expected one of two-phases, degeneracy-breaking",
        ),
        (["reproduce", "two-phases", "--dataset", "mnist"], "two-phases does not take --dataset mnist; it takes none"),
        (
            ["reproduce", "layerwise", "--dataset", "imagenet"],
            "layerwise does not take --dataset imagenet; it takes digits, mnist, fashion-mnist, cifar10, cifar100",
        ),
        (["reproduce", "--dataset", "imagenet"], "does not take --dataset imagenet; it takes digits"),
        (["reproduce", "--report", "."], "report=. is a folder; give the name of a file, such as report.html"),
        (
            ["reproduce", "--report", "/dev/null/page.html"],
            "report=/dev/null/page.html cannot be written: /dev/null is a file, not a folder; give another report",
        ),
        (["reproduce", "--workers", "0"], "workers must be a whole number of at least 1, got 0"),
        (["reproduce", "--address", "auto"], "address='auto' is where a Ray cluster is; give executor ray with it"),
        (["reproduce", "--runs", "/dev/null"], "runs=/dev/null cannot be written: /dev/null is a file, not a folder"),
    ],
)
def test_a_wrong_argument_gives_status_2_and_says_what_was_expected(
    reproduce: Main, capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str], message: str
) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("feedalign: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args",
    [
        ["explode"],
        ["reproduce", "--preset", "huge"],
        ["reproduce", "--speed", "9"],
        ["reproduce", "--executor", "cloud"],
        ["data", "fetch", "imagenet"],
        ["data", "drop", "mnist"],
        ["data", "fetch"],
    ],
)
def test_a_command_that_cannot_be_read_gives_status_2(
    args: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(args)
    out, err = capsys.readouterr()
    assert out == ""
    assert err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_set_gives_status_3_and_what_to_type(
    reproduce: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FEEDALIGN_DATA", str(tmp_path / "nothing"))
    assert reproduce("layerwise", "--dataset", "mnist") == 3
    assert "feedalign data fetch mnist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("error", ERRORS)
def test_what_fails_outside_gives_status_3_and_names_the_job(
    reproduce: Main,
    experiments: Experiments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: str,
    workers: str,
) -> None:
    monkeypatch.setattr(experiments["two-phases"], "jobs", lambda _config: [Failing(error)])
    assert reproduce("two-phases", "--workers", workers) == 3
    assert capsys.readouterr().err == f"feedalign: {ERRORS[error]}\nin the job Failing(error='{error}')\n"


def test_an_interrupt_gives_status_130_and_keeps_what_was_finished(
    reproduce: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real = Point.compute

    def interrupted(point: Point, desk: Desk) -> xr.Dataset:
        if point.x == 4:
            raise KeyboardInterrupt
        return real(point, desk)

    with monkeypatch.context() as patch:
        patch.setattr(Point, "compute", interrupted)
        assert reproduce() == 130
    out, err = capsys.readouterr()
    assert "feedalign: interrupted; finished runs are kept" in err
    assert "two-phases\n  supported" in out
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [Point.kind, "two-phases"]
    assert len(list((tmp_path / "runs" / Point.kind).glob("????????????"))) == 4

    monkeypatch.setattr(Point, "compute", lambda point, desk: real(point, desk) if point.x == 4 else refuse())
    assert reproduce() == 0


def test_list_names_every_experiment_its_claim_and_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name, claim in CLAIMS.items():
        assert f"{name}\n  {claim}" in out
    assert "Takes --dataset digits, mnist, fashion-mnist, cifar10, cifar100." in out
