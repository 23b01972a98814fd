"""`feedalign diagnose`: what it prints, writes and refuses."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import xarray as xr

import feedalign as fa
from feedalign.cli import main
from feedalign.lab.data import ImageData

SHORT = ("--steps", "12", "--probe", "60", "--samples", "200", "--hidden", "20", "20")
# Not a module of the tests: they copy it to where a user would have it.
MODULE = (Path(__file__).parent / "diagnosis" / "my_nets.py.txt").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(MODULE)
    build = "from torch import nn\ndef build(): return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))\n"
    (tmp_path / "my_neighbour.py").write_text(build)
    (tmp_path / "my_late_neighbour.py").write_text("SCALE = 1.0\n")
    (tmp_path / "exiting_nets.py").write_text("raise SystemExit\n")
    (tmp_path / "broken_nets.py").write_text("import no_such_library\n")
    (tmp_path / "bad_nets.py").write_text("1 / 0\n")
    yield
    forget()


def forget() -> None:
    """Forget the user's modules, as a new process does."""
    for name in ("my_nets", "my_neighbour", "my_late_neighbour", "my_data"):
        sys.modules.pop(name, None)


def result() -> xr.Dataset:
    (folder,) = Path("runs/diagnose").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "environment.json", "figure.svg", "result.nc",
    ]  # fmt: skip
    return xr.load_dataset(folder / "result.nc", engine="h5netcdf")


def test_a_data_set_gives_table_figure_and_netcdf(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", *SHORT, "--repeat", "3=20"]) == 0
    out = capsys.readouterr().out
    assert "Diagnosis of digits, class 3 × 20." in out
    assert "Before training, 224 samples:" in out
    assert "output 3 is over-represented" in out
    assert "cond(Â)" in out
    dataset = result()
    found = fa.Diagnosis.from_dataset(dataset)
    assert found.table() in out
    assert (
        f"Output 3 stands out in the errors: their condition number is {found.errors.spectrum.condition_number:.3g}"
        in out
    )
    assert re.search("ConditionedDFA (was|gained)", out)
    assert dataset.gradient_alignment.notnull().all()
    capsys.readouterr()
    assert main(["diagnose", *SHORT, "--repeat", "3=20"]) == 0  # from the folder
    assert capsys.readouterr().out == out


def test_what_is_not_compared_is_told_how_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", *SHORT, "--repeat", "3=20", "--no-compare"]) == 0
    assert "may help or harm" in capsys.readouterr().out
    assert result().net.values.tolist() == ["dfa"]


def test_the_digits_have_no_output_that_stands_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--steps", "5"]) == 0
    assert "No output stands out in the errors: their condition number is 1.1" in capsys.readouterr().out


@pytest.mark.network
def test_mnist_is_told_from_digits(mnist: ImageData, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--dataset", "mnist", "--steps", "5", "--probe", "100"]) == 0
    found = fa.Diagnosis.from_dataset(result())
    assert found.errors.spectrum.condition_number < 1.5
    assert found.errors.directions == ()
    assert set(found.input_output.directions[0].outputs) == {0, 1}


@pytest.mark.parametrize(
    "function",
    [
        *("good", "with_points", "one_point", "wrapped", "neighbour", "late", "prints", "endless", "varying"),
        *("clears_the_path", "without_words", "without_state", "sparse"),
    ],
)
def test_a_model_of_ones_own(function: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--model", f"my_nets:{function}", "--steps", "5", "--samples", "100"]) == 0
    out, err = capsys.readouterr()
    assert f"Diagnosis of my_nets:{function}." in out
    assert result().net.values.tolist() == (["dfa"] if function == "wrapped" else ["dfa", "conditioned-dfa"])
    assert "loud" not in out
    assert ("a word of the user's" in err and "loud" in err) == (function == "prints")


def runs() -> int:
    return len(list(Path("runs/diagnose").iterdir()))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("my_nets.py", "nn.Tanh()", "nn.ReLU()"),
        ("my_neighbour.py", "nn.Tanh()", "nn.Tanh() "),
        ("my_late_neighbour.py", "1.0", "1.5"),
    ],
)
def test_changed_code_is_run_again(tmp_path: Path, file: str, before: str, after: str) -> None:
    name = {"my_nets.py": "good", "my_neighbour.py": "neighbour", "my_late_neighbour.py": "late"}[file]
    arguments = ["diagnose", "--model", f"my_nets:{name}", "--steps", "2", "--no-compare"]
    assert main(arguments) == 0
    forget()
    assert main(arguments) == 0
    assert runs() == 1
    path = tmp_path / file
    path.write_text(path.read_text().replace(before, after))
    forget()
    assert main(arguments) == 0
    assert runs() == 2


DATA = """
import torch
from torch import nn

def small():
    x, y, weight = torch.load("data.pt")
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    return model, nn.CrossEntropyLoss(weight), list(zip(x.split(32), y.split(32)))
"""


@pytest.mark.parametrize("changed", ["labels", "inputs", "class weights"])
def test_changed_data_are_run_again_also_outside_of_the_probe(tmp_path: Path, changed: str) -> None:
    (tmp_path / "my_data.py").write_text(DATA)
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    y, weight = x[:, :3].argmax(1), torch.ones(3)
    arguments = [
        "diagnose",
        "--model",
        "my_data:small",
        "--probe",
        "32",
        "--samples",
        "32",
        "--steps",
        "8",
        "--no-compare",
    ]
    torch.save((x, y, weight), "data.pt")
    for _ in range(2):
        assert main(arguments) == 0
        assert runs() == 1
    if changed == "labels":
        y[-1] = (y[-1] + 1) % 3
    elif changed == "inputs":
        x[-1, 0] += 1e-3
    else:
        weight[2] = 2.0
    torch.save((x, y, weight), "data.pt")
    assert main(arguments) == 0
    assert runs() == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [*SHORT, "--lr", "1e30", "--activation", "relu"],
        [*SHORT, "--lr", "1000"],
        ["--model", "my_nets:explodes", "--steps", "20"],
    ],
)
def test_a_run_that_diverges_has_its_own_status(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # computed, and from the folder
        assert main(["diagnose", *arguments]) == 1
        assert "dfa DIVERGED after" in capsys.readouterr().out


def test_the_folder_is_looked_at_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["diagnose", "--model", "my_nets:raises", "--runs", "file/runs"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("feedalign: runs=file/runs cannot be written: ")
    assert told.endswith("file is a file, not a folder; give another runs\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be a whole number of at least 1"),
        (["--lr", "nan"], "lr must be a finite number above 0, got nan"),
        (["--steps", str(10**18)], "would take days; at most 10,000,000 are possible"),
        (["--lr", "1e300"], "lr=1e+300 is beyond 3.4e+38, the largest number that the model's weights can hold"),
        (["--hidden", "40000", "1000"], "at most 20,000,000 weights can be diagnosed in minutes"),
        (["--hidden", *["2"] * 301], "hidden has 301 layers; at most 300 are possible"),
        (["--batch-size", "0"], "batch_size must be a whole number of at least 1"),
        (["--batch-size", "9999"], "batch_size=9999 must be at most the 1442 training samples"),
        (["--samples", "0"], "samples must be a whole number of at least 1"),
        (["--probe", "0"], "probe must be a whole number of at least 1"),
        (["--seed", "-1"], "seed must be a whole number of at least 0"),
        (["--seed", str(2**64)], "seed must be a whole number of at least 0 and at most 18446744073709551615"),
        (["--hidden"], "hidden=() leaves no hidden layer to align"),
        (["--hidden", "0"], "must be widths of at least 1"),
        (["--hidden", "1000000000"], "makes a network of 74,000,000,000 weights"),
        (["--points", "1"], "points is for a model of your own"),
        (["--dataset", "digit"], "unknown data set 'digit'; expected one of digits, mnist"),
        (["--repeat", "3"], "repeat='3' must be LABEL=TIMES, such as 3=20, with a label from 0 to 9"),
        (["--repeat", "10=2"], "with a label from 0 to 9"),
        (["--repeat", "3=0"], "at least 1"),
        (["--repeat", "3=2", "3=4"], "label 3 is there twice"),
        (["--repeat", "3=1000000"], "makes 147,001,295 training samples; at most 10,000,000"),
        (["--repeat", "3=" + "9" * 5000], "must be LABEL=TIMES"),
        (["--model", "my_nets"], "must be package.module:function, such as mine.nets:small"),
        (["--model", ":good"], "must be package.module:function"),
        (["--model", ".my_nets:good"], "must be package.module:function"),
        (["--model", "my_nets:good:twice"], "must be package.module:function"),
        (["--model", "my_net:good"], "cannot import my_net: it is not found; run in the folder that holds it"),
        (["--model", "my_nets.deeper.still:good"], "it is not found"),
        (
            ["--model", "broken_nets:good"],
            "cannot import broken_nets: 'no_such_library', which it imports, is not found",
        ),
        (["--model", "bad_nets:good"], "importing bad_nets raised ZeroDivisionError: division by zero"),
        (["--model", "exiting_nets:good"], "importing exiting_nets raised SystemExit"),
        (["--model", "my_nets:goood"], "my_nets has no function 'goood'"),
        (["--model", "my_nets:number"], "my_nets has no function 'number'"),
        (["--model", "my_nets:raises"], "raises() raised RuntimeError: no disk; it must run without arguments"),
        (["--model", "my_nets:exits"], "exits() raised SystemExit: 0; it must run without arguments"),
        (["--model", "my_nets:ends_the_process"], "ends_the_process() raised SystemExit: os._exit(7)"),
        (["--model", "my_nets:ends_in_the_loss"], "on the first samples, raised SystemExit: os._exit(0)"),
        (["--model", "my_nets:base_exception"], "base_exception() raised BaseException: base"),
        (["--model", "my_nets:wordless"], "raised Wordless: (no words, for __str__ raised RuntimeError)"),
        (["--model", "my_nets:broken_points"], "reading the points raised RuntimeError: points"),
        (["--model", "my_nets:endless_points"], "there are more than 10,000 points; give a list of names"),
        (["--model", "my_nets:on_meta"], "the model is on the meta device, so its weights are no numbers"),
        (["--model", "my_nets:lazy"], "found no hidden layer"),
        (["--model", "my_nets:two"], "two() returned a tuple of 2, expected a tuple (model, loss function, batches)"),
        (["--model", "my_nets:no_module"], "first came a int, expected a torch.nn.Module"),
        (["--model", "my_nets:no_loss"], "second came a str, expected a loss function of (output, y)"),
        (["--model", "my_nets:no_batches"], "batches is a int, expected pairs (x, y)"),
        (["--model", "my_nets:empty"], "what was given to iterate over is empty"),
        (["--model", "my_nets:no_pair"], "batch 0 is a Tensor, expected a pair (x, y)"),
        (["--model", "my_nets:not_scalar"], "loss_fn must give one number with a gradient, got shape (40,)"),
        (["--model", "my_nets:detached"], "requires_grad=False"),
        (["--model", "my_nets:wrong_targets"], "model or loss function, on the first samples, raised TypeError"),
        (["--model", "my_nets:wrong_shape"], "model or loss function, on the first samples, raised RuntimeError"),
        (["--model", "my_nets:complex_inputs"], "model or loss function, on the first samples, raised RuntimeError"),
        (["--model", "my_nets:double"], "model or loss function, on the first samples, raised RuntimeError"),
        (["--model", "my_nets:once"], "the batches can be iterated only once"),
        (["--model", "my_nets:second_batch"], "reading batch 1 raised OSError: no such file"),
        (["--model", "my_nets:exits_at_second_batch"], "reading batch 1 raised SystemExit: 0"),
        (["--model", "my_nets:empty_batches"], "batch 0 holds no samples"),
        (["--model", "my_nets:frozen"], "no parameter of the model requires a gradient"),
        (["--model", "my_nets:sequential"], "wrapped in FA, which sends no error straight to a layer"),
        (["--model", "my_nets:wrapped", "--points", "1"], "wrapped already; points, feedback"),
        (["--model", "my_nets:wrapped", "--feedback", "smooth"], "wrapped already; --feedback is for a bare one"),
        (["--model", "my_nets:wrong_points"], "name the points (points=, on the command line --points)"),
        (["--model", "my_nets:points_of_numbers"], "among the points came a int, expected dotted names"),
        (["--model", "my_nets:points_of_number"], "among the points came a int, expected dotted names"),
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
    assert not Path("runs").exists()


def test_a_data_set_that_was_not_fetched_is_no_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEEDALIGN_DATA", str(tmp_path))
    assert main(["diagnose", "--dataset", "mnist"]) == 3
    assert "feedalign data fetch mnist" in capsys.readouterr().err
