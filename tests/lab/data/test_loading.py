"""What is loaded is what was stored; anything else is an error that says what to type."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from feedalign.errors import ArgumentError, DataError
from feedalign.lab.data import NAMES, ImageData, load
from feedalign.lab.data.stored import STORED, Contents


def store(root: Path, contents: Contents) -> Path:
    folder = root / "mnist"
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def is_consistent(data: ImageData) -> bool:
    """Images and labels have the promised types, fit each other, and every label is below `classes`."""
    return all(
        images.dtype == torch.uint8
        and labels.dtype == torch.int64
        and images.ndim == 4
        and labels.shape == images.shape[:1]
        and 0 <= int(labels.min()) <= int(labels.max()) < data.classes
        for images, labels in (
            (data.train_images, data.train_labels),
            (data.test_images, data.test_labels),
        )
    )


def test_digits_are_split_without_loss_and_class_by_class() -> None:
    data = load("digits")
    assert is_consistent(data)
    images = torch.cat([data.train_images, data.test_images]).flatten(1)
    expected = np.rint(load_digits().data * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, images.numpy())) == sorted(map(bytes, expected))
    counts = [labels.bincount(minlength=10) for labels in (data.train_labels, data.test_labels)]
    assert torch.equal(counts[1], (counts[0] + counts[1]) // 5)


def test_digits_keep_their_labels() -> None:
    data = load("digits")
    distances = torch.cdist(data.test_images.flatten(1).double(), data.train_images.flatten(1).double())
    nearest = data.train_labels[distances.argmin(dim=1)]
    # Nearest neighbours are right on 98 % of these; labels out of step with images would leave 10 %.
    assert (nearest == data.test_labels).double().mean() > 0.95


def test_digits_are_the_same_each_time_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = load("digits"), load("digits")
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.test_labels, second.test_labels)
    assert torch.equal(state, torch.get_rng_state())


def test_loaded_bytes_are_the_stored_bytes(tiny_mnist: Contents, tmp_path: Path) -> None:
    store(tmp_path, tiny_mnist)
    data = load("mnist", tmp_path)
    assert is_consistent(data)
    stored = STORED["mnist"]
    loaded = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    for file, tensor in zip(stored.files, loaded, strict=True):
        payload = tiny_mnist[file.name][-math.prod(file.shape) :]
        assert tensor.shape == file.shape
        assert tensor.to(torch.uint8).numpy().tobytes() == payload


def test_the_environment_says_where_data_lies(
    tiny_mnist: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEEDALIGN_DATA", str(tmp_path))
    store(tmp_path, tiny_mnist)
    assert torch.equal(load("mnist").train_images, load("mnist", tmp_path).train_images)


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("damage", ["truncated", "longer", "one bit", "empty", "missing"])
def test_every_damage_to_every_file_is_noticed(tiny_mnist: Contents, tmp_path: Path, victim: int, damage: str) -> None:
    name, content = list(tiny_mnist.items())[victim]
    path = store(tmp_path, tiny_mnist) / name
    if damage == "missing":
        path.unlink()
        complaint = "cannot read"
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(
            {"truncated": content[:-1], "longer": content + b"\0", "one bit": flipped, "empty": b""}[damage]
        )
        complaint = "truncated or altered: its md5 is [0-9a-f]{32}, expected [0-9a-f]{32}"
    with pytest.raises(DataError, match=rf"(?s){name}.*{complaint}|{complaint}.*{name}") as caught:
        load("mnist", tmp_path)
    assert f"FEEDALIGN_DATA={tmp_path} feedalign data fetch mnist" in str(caught.value)


def test_missing_data_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDALIGN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"^mnist is not in {re.escape(str(tmp_path))}; get it with: feedalign data"):
        load("mnist")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=f"unknown data set 'minst'; expected one of {', '.join(NAMES)}"):
        load("minst")
