"""`feedalign diagnose`: what it prints, writes and refuses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

from feedalign.cli import main

SHORT = ("--steps", "12", "--probe", "60", "--samples", "200", "--hidden", "20", "20")
MODULE = """
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
y = torch.arange(40) % 3
model = lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
batches = [(x[:20], y[:20]), (x[20:], y[20:])]
loss = functional.cross_entropy

def good():
    return model(), loss, batches

def with_points():
    return model(), loss, batches, ["1"]

def one_point():
    return nn.Sequential(OrderedDict(low=nn.Linear(6, 8), act=nn.Tanh(), top=nn.Linear(8, 3))), loss, batches, "act"

def wrong_points():
    return model(), loss, batches, ["one"]

def two():
    return model(), loss

def no_module():
    return 3, loss, batches

def no_loss():
    return model(), "cross_entropy", batches

def no_batches():
    return model(), loss, 3

def empty():
    return model(), loss, []

def no_pair():
    return model(), loss, [x]

def not_scalar():
    return model(), nn.CrossEntropyLoss(reduction="none"), batches

def detached():
    return model(), lambda output, target: loss(output.detach(), target), batches

def wrong_targets():
    return model(), loss, [(x, ["cat"] * 40)]

def wrong_shape():
    return model(), loss, [(x[:, :3], y)]

def once():
    return model(), loss, (batch for batch in batches)

def sequential():
    import feedalign as fa
    return fa.FA(model()), loss, batches

def wrapped():
    import feedalign as fa
    return fa.DFA(model(), seed=3), loss, batches

def nothing_to_learn():
    return model(), lambda output, target: 0 * output.sum(), batches

def raises():
    raise RuntimeError("no disk")

number = 3
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(MODULE)
    (tmp_path / "broken_nets.py").write_text("import no_such_library\n")
    (tmp_path / "bad_nets.py").write_text("1 / 0\n")
    yield
    sys.modules.pop("my_nets", None)


def result() -> xr.Dataset:
    (folder,) = Path("runs/diagnose").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "environment.json", "figure.svg", "result.nc",
    ]  # fmt: skip
    return xr.load_dataset(folder / "result.nc", engine="h5netcdf")


def test_a_data_set_gives_table_figure_and_netcdf(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", *SHORT, "--repeat", "3=20"]) == 0
    out = capsys.readouterr().out
    assert "before training, 224 samples of digits, class 3 × 20:" in out
    assert "output 3 is over-represented" in out
    assert "cond(Â)" in out
    assert "Take conditioned feedback" in out
    dataset = result()
    assert dict(dataset.sizes)["layer"] == 3
    assert dataset.gradient_alignment.notnull().all()
    for value in dataset.gradient_alignment.sel(net="plain").isel(step=-1).values:
        assert f"{value:+.2f}" in out
    capsys.readouterr()
    assert main(["diagnose", *SHORT, "--repeat", "3=20"]) == 0  # from the folder
    assert capsys.readouterr().out == out


@pytest.mark.parametrize("function", ["good", "with_points", "one_point", "wrapped"])
def test_a_model_of_ones_own(function: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--model", f"my_nets:{function}", "--steps", "5"]) == 0
    assert f"samples of my_nets:{function}" in capsys.readouterr().out
    assert result().net.values.tolist() == (["DFA"] if function == "wrapped" else ["plain", "conditioned"])


def test_changed_code_is_run_again(tmp_path: Path) -> None:
    arguments = ["diagnose", "--model", "my_nets:good", "--steps", "5"]
    assert main(arguments) == 0
    (tmp_path / "my_nets.py").write_text(MODULE.replace("nn.Tanh()", "nn.ReLU()"))
    del sys.modules["my_nets"]
    assert main(arguments) == 0
    assert len(list(Path("runs/diagnose").iterdir())) == 2


def test_a_run_that_diverges_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", *SHORT, "--lr", "1e30", "--activation", "relu"]) == 1
    assert "DIVERGED after" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps=0 must be at least 1"),
        (["--lr", "nan"], "lr=nan must be a positive number"),
        (["--batch-size", "0"], "batch_size=0 must be at least 1"),
        (["--batch-size", "9999"], "batch_size=9999 must be at most the 1442 training samples"),
        (["--samples", "0"], "samples=0 must be at least 1"),
        (["--probe", "0"], "probe=0 must be at least 1"),
        (["--seed", "-1"], "seed=-1 must be at least 0"),
        (["--hidden"], "hidden=() leaves no hidden layer to align"),
        (["--points", "1"], "points is for a model of your own"),
        (["--dataset", "digit"], "unknown data set 'digit'; expected one of digits, mnist"),
        (["--repeat", "3"], "repeat='3' must be LABEL=TIMES, such as 3=20, with a label from 0 to 9"),
        (["--repeat", "10=2"], "with a label from 0 to 9"),
        (["--repeat", "3=0"], "at least 1"),
        (["--repeat", "3=2", "3=4"], "label 3 is there twice"),
        (["--model", "my_nets"], "must be package.module:function, such as mine.nets:small"),
        (["--model", ":good"], "must be package.module:function"),
        (["--model", "my_net:good"], "cannot import my_net: it is not found; run in the folder that holds it"),
        (
            ["--model", "broken_nets:good"],
            "cannot import broken_nets: 'no_such_library', which it imports, is not found",
        ),
        (["--model", "bad_nets:good"], "importing bad_nets raised ZeroDivisionError: division by zero"),
        (["--model", "my_nets:goood"], "my_nets has no function 'goood'"),
        (["--model", "my_nets:number"], "my_nets has no function 'number'"),
        (["--model", "my_nets:raises"], "raises() raised RuntimeError: no disk; it must run without arguments"),
        (["--model", "my_nets:two"], "two() returned a tuple of 2, expected a tuple (model, loss function, batches)"),
        (["--model", "my_nets:no_module"], "first came a int, expected a torch.nn.Module"),
        (["--model", "my_nets:no_loss"], "second came a str, expected a loss function of (output, y)"),
        (["--model", "my_nets:no_batches"], "third came a int, expected batches (x, y) that can be iterated"),
        (["--model", "my_nets:empty"], "what was given to iterate over is empty"),
        (["--model", "my_nets:no_pair"], "a batch is a Tensor, expected a pair (x, y)"),
        (["--model", "my_nets:not_scalar"], "loss_fn must give one number with a gradient, got shape (40,)"),
        (["--model", "my_nets:detached"], "requires_grad=False"),
        (["--model", "my_nets:wrong_targets"], "model or loss failed on the first samples, TypeError"),
        (["--model", "my_nets:wrong_shape"], "model or loss failed on the first samples, RuntimeError"),
        (["--model", "my_nets:once"], "the batches can be iterated only once"),
        (["--model", "my_nets:sequential"], "wrapped in FA, which sends no error straight to a layer"),
        (["--model", "my_nets:wrapped", "--points", "1"], "wrapped already; points and feedback are for a bare one"),
        (["--model", "my_nets:wrong_points"], "points go by --points, or come fourth from the function"),
        (["--model", "my_nets:nothing_to_learn"], "so there is nothing to learn from"),
        (["--model", "my_nets:good", "--dataset", "digits"], "got dataset='digits' and model='my_nets:good'; give one"),
        (["--model", "my_nets:good", "--repeat", "3=20"], "repeat is for a data set"),
        (["--model", "my_nets:good", "--batch-size", "5"], "batch_size is for a data set"),
    ],
)
def test_misuse_is_refused_with_a_remedy(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "feedalign: " in err
    assert not list(Path(".").glob("runs/diagnose/*"))


def test_a_data_set_that_was_not_fetched_is_no_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEEDALIGN_DATA", str(tmp_path))
    assert main(["diagnose", "--dataset", "mnist"]) == 3
    assert "feedalign data fetch mnist" in capsys.readouterr().err
