"""Data and networks of one's own: what is read, which part of it is kept, and what is refused before any work."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from feedalign.errors import ArgumentError
from feedalign.lab.own_training import Run, TrainConfig, compute, run_of
from feedalign.lab.own_training.samples import samples_of
from feedalign.lab.runs import Checkpoints, Desk


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and networks of a user's."""
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("my_own_nets", None)  # that of another test
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 6))
    y = x[:, :3].argmax(1)
    arrays = {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:], "y_test": y[100:]}
    np.savez("good.npz", **arrays)
    np.savez("images.npz", **(arrays | {name: arrays[name].reshape(-1, 2, 3) for name in ("x_train", "x_test")}))
    np.savez("gap.npz", **(arrays | {"y_train": np.full(100, 3), "y_test": np.zeros(50, int)}))
    np.savez("half.npz", x_train=x, y_train=y)
    np.savez("floats.npz", **(arrays | {"y_train": y[:100] / 2}))
    np.savez("nan.npz", **(arrays | {"x_test": x[100:] * np.nan}))
    np.savez("fewer.npz", **(arrays | {"y_test": y[100:-1]}))
    np.savez("objects.npz", **(arrays | {"x_train": np.array([None] * 100)}))
    np.savez("shapes.npz", **(arrays | {"x_test": x[100:, :5]}))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "my_own_nets.py").write_text(
        "import feedalign as fa\nfrom torch import nn\n"
        "def plain(): return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))\n"
        "def with_points(): return plain(), ['1']\n"
        "def few(): return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))\n"
        "def wrong(): return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))\n"
        "def wrapped(): return fa.DFA(plain())\n"
        "def number(): return 3\n"
    )
    return tmp_path


OWN = TrainConfig(dataset="good.npz", epochs=2, batch_size=25, measurements=2)


@pytest.mark.parametrize("network", ["mlp", "my_own_nets:plain", "my_own_nets:with_points"])
def test_data_and_networks_of_ones_own(own: Path, network: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = compute(replace(OWN, network=network))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.dataset.sizes["layer"] == (3 if network == "mlp" else 2)
    torch.manual_seed(8)  # what the user's network draws does not hang on what was drawn before
    second = compute(replace(OWN, network=network), Path("elsewhere"))
    xr.testing.assert_identical(first.dataset, second.dataset)


def test_changed_data_are_another_run(own: Path) -> None:
    before = run_of(OWN)
    arrays = dict(np.load("good.npz"))
    np.savez("good.npz", **(arrays | {"y_train": arrays["y_train"][::-1]}))
    after = run_of(OWN)
    assert (before.config, before.code) == (after.config, after.code)
    assert before.data != after.data
    with pytest.raises(ArgumentError, match="has changed since the command began"):
        Run(before.config, before.data, "").compute(Desk(lambda _done, _total: None, Checkpoints(own / "work")))


def test_a_part_of_a_file_that_is_sorted_by_label_holds_all_labels(own: Path) -> None:
    arrays = dict(np.load("good.npz"))
    order = np.argsort(arrays["y_train"], kind="stable")
    np.savez("good.npz", **(arrays | {name: arrays[name][order] for name in ("x_train", "y_train")}))
    job = run_of(replace(OWN, train_samples=30))
    found = samples_of(job.config, job.data)
    assert len(found.train_x) == len(found.train_y) == 30
    assert set(found.train_y.tolist()) == set(arrays["y_train"].tolist())
    assert int((arrays["y_train"] == arrays["y_train"].min()).sum()) >= 30, "the first 30 have one label"


@pytest.mark.parametrize(("dataset", "network"), [("digits", "convnet"), ("good.npz", "mlp")])
def test_classes_that_are_kept_are_numbered_anew_in_train_and_test(own: Path, dataset: str, network: str) -> None:
    every, part = (
        run_of(replace(OWN, dataset=dataset, network=network, classes=classes, label_noise=0.0))
        for classes in ((), (2, 0))
    )
    whole, found = samples_of(every.config, every.data), samples_of(part.config, part.data)
    assert found.classes == 2
    for name in ("train_y", "test_y"):
        labels = getattr(whole, name)
        kept = labels[(labels == 2) | (labels == 0)]
        assert torch.equal(getattr(found, name), (kept == 0).long())
    assert compute(part.config).dataset.sizes["layer"] == 3


def test_label_noise_and_samples_are_drawn_among_the_classes_that_are_kept(own: Path) -> None:
    job = run_of(replace(OWN, classes=(2, 0), train_samples=40, label_noise=1.0))
    found = samples_of(job.config, job.data)
    assert len(found.train_y) == 40
    assert set(found.train_y.tolist()) == {0, 1}
    assert found.noisy.all()


def test_changed_code_is_another_run(own: Path) -> None:
    before = run_of(replace(OWN, network="my_own_nets:plain"))
    assert run_of(replace(OWN, network="my_own_nets:plain")) == before
    module = own / "my_own_nets.py"
    module.write_text(module.read_text().replace("Dropout(0.2)", "Dropout(0.25)"))
    del sys.modules["my_own_nets"]  # as in a new process
    after = run_of(replace(OWN, network="my_own_nets:plain"))
    assert (before.config, before.data) == (after.config, after.data)
    assert before.code != after.code


def test_images_of_ones_own_have_a_channel(own: Path) -> None:
    dataset = compute(replace(OWN, dataset="images.npz", network="convnet", channels=(3,))).dataset
    assert dataset.layer.values.tolist() == ["0.0", "1.1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "none.npz"}, "cannot read the file .No such file"),
        ({"dataset": "text.npz"}, "is no .npz file of numbers; make one with numpy.savez"),
        ({"dataset": "objects.npz"}, "is no .npz file of numbers"),
        ({"dataset": "half.npz"}, "has no x_test, y_test; expected the arrays x_train, y_train, x_test, y_test, got"),
        ({"dataset": "floats.npz"}, "y_train has type float64 and shape .100., expected whole numbers"),
        ({"dataset": "nan.npz"}, "x_test holds numbers that are not finite"),
        ({"dataset": "fewer.npz"}, "x_test has 50 samples and y_test 49"),
        ({"dataset": "shapes.npz"}, "a sample of x_train is .6., one of x_test .5."),
        ({"dataset": "digit"}, "unknown data set 'digit'; expected one of digits, mnist"),
        ({"image_size": 3}, "image_size=3 is for images"),
        ({"network": "convnet"}, "network=convnet is for images"),
        ({"network": "cnn"}, "network='cnn' is unknown; expected mlp, convnet, or package.module:function"),
        (
            {"classes": (0, 3)},
            "classes must be at least two different labels of good.npz, which are 0 to 2, got .0, 3.",
        ),
        ({"classes": (1,)}, "classes must be at least two different labels of good.npz"),
        ({"classes": (1, 1)}, "classes must be at least two different labels of good.npz"),
        (
            {"dataset": "gap.npz", "classes": (1, 2)},
            r"gap.npz has no training or no test samples of the classes \[1, 2\]",
        ),
        ({"train_samples": 101}, "train_samples=101 must be at most 100"),
        ({"batch_size": 101}, "batch_size=101 must be at most 100"),
        ({"network": "my_own_nets:none"}, "network='my_own_nets:none': my_own_nets has no function 'none'"),
        ({"network": "my_own_nets:number"}, "returned a int, expected the bare model"),
        ({"network": "my_own_nets:wrapped"}, "returned a DFA, expected the bare model"),
        ({"network": "my_own_nets:wrong"}, r"it is given samples of shape \[6\]"),
        ({"network": "my_own_nets:few"}, "it must return one number for each of the 3 classes"),
        ({"network": "my_own_nets:plain", "points": ("9",)}, "point '9' is no module of the model"),
        ({"rule": "frozen", "hidden": (5,)}, "between the first block and the readout there is no block"),
        ({"feedback": "channelwise"}, "its channels cannot be told"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(own: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        compute(replace(OWN, **changes))
    assert not Path("runs").exists()
