"""`feedalign train` and `feedalign sweep`: what they print, write and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from feedalign.cli import main

SHORT = ("--train-samples", "200", "--epochs", "2", "--batch-size", "20", "--measurements", "2", "--hidden", "8")
FILE = """
[train]
train_samples = 200
epochs = 2
batch_size = 20
measurements = 2
hidden = [8]
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(FILE)
    (tmp_path / "grid.toml").write_text(FILE + '[grid]\nrule = ["dfa", "fa"]\n')
    (tmp_path / "wrong.toml").write_text("[train]\nepoch = 2\n")


def folders(kind: str) -> list[Path]:
    return sorted(Path("runs", kind).iterdir())


def test_flags_and_file_ask_for_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT]) == 0
    out = capsys.readouterr().out
    assert "layer  gradient alignment  weight alignment" in out
    assert "test accuracy 0." in out
    (folder,) = folders("train")
    assert f"result.nc, metrics.csv, figure.svg and the trained network are in {folder}" in out
    for args in (["mine.toml"], [str(folder / "config.toml")]):
        assert main(["train", *args]) == 0
        assert capsys.readouterr().out == out
    assert folders("train") == [folder]


def test_flags_go_before_the_file() -> None:
    assert main(["train", "mine.toml", "--rule", "fa", "--seed-feedback", "3"]) == 0
    (folder,) = folders("train")
    text = (folder / "config.toml").read_text()
    assert 'rule = "fa"\n' in text
    assert "seed_feedback = 3\n" in text
    assert "hidden = [8]\n" in text


def test_a_part_of_the_classes_is_chosen_by_flag_or_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "--classes", "3", "8"]) == 0
    out = capsys.readouterr().out
    Path("mine.toml").write_text(FILE + "classes = [3, 8]\n")
    assert main(["train", "mine.toml"]) == 0
    assert capsys.readouterr().out == out
    (folder,) = folders("train")
    assert "classes = [3, 8]\n" in (folder / "config.toml").read_text()


def test_a_run_that_diverges_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "mine.toml", "--rule", "backprop", "--activation", "linear", "--lr", "1e20"]
    for _ in range(2):  # computed, and from the folder
        assert main(args) == 1
        out = capsys.readouterr().out
        assert "DIVERGED: the loss is not finite after " in out
        assert "the trained network" not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "wrong.toml"], "wrong.toml, [train]: 'epoch' is unknown (did you mean epochs?)"),
        (["train", "none.toml"], "cannot read none.toml"),
        (["train", "grid.toml"], "a grid is for `feedalign sweep`"),
        (["train", "--lr", "0.1", "mine.toml"], "mine.toml must come before the options"),
        (["train", "--lr", "0"], "lr must be a number in (0, 3.4e+38], got 0.0"),
        (["train", "--dataset", "digit"], "unknown data set 'digit'"),
        (["train", "--runs", "mine.toml"], "runs=mine.toml cannot be written"),
        (["sweep", "mine.toml"], "mine.toml has no [grid]"),
        (["sweep", "none.toml"], "cannot read none.toml"),
        (["sweep", "grid.toml", "--workers", "0"], "workers must be a whole number of at least 1"),
        (["sweep", "grid.toml", "--address", "auto"], "give executor ray with it"),
    ],
)
def test_misuse_is_refused_with_a_remedy(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("feedalign: ")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_data_set_that_was_not_fetched_is_no_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEEDALIGN_DATA", str(tmp_path))
    assert main(["train", "--dataset", "mnist"]) == 3
    assert "feedalign data fetch mnist" in capsys.readouterr().err


def test_a_sweep_prints_and_writes_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "grid.toml", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    (folder,) = folders("sweep")
    assert f"table.csv, figure.svg and result.nc are in {folder}" in out
    assert [line.split()[0] for line in out.splitlines()[1:6]] == ["rule", "dfa", "fa", "backprop", "readout-only"]
    assert "recovery" in out
    assert len(folders("train")) == 4
    dataset = xr.load_dataset(folder / "result.nc", engine="h5netcdf")
    assert (folder / "table.csv").read_text().count("\n") == 1 + dataset.sizes["run"]
    assert main(["sweep", "grid.toml", "--workers", "1"]) == 0  # from the folder
    assert capsys.readouterr().out == out


def test_a_sweep_with_a_run_that_diverges_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.toml").write_text(FILE + 'activation = "linear"\nrule = "backprop"\n[grid]\nlr = [0.1, 1e20]\n')
    assert main(["sweep", "grid.toml", "--workers", "1"]) == 1
    assert "runs DIVERGED and are in no mean: train/" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_the_command_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    assert "FILE.toml" in capsys.readouterr().out
