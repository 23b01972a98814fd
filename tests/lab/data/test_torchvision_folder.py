"""Folders that torchvision made are read; pickles in them never are."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest

from feedalign.errors import DataError
from feedalign.lab.data import fetch
from feedalign.lab.data.stored import Contents


def on_disk(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("place", ["MNIST/raw", "raw", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_found_in_root_or_raw_folder_zipped_or_not(
    tiny_mnist: Contents, tmp_path: Path, place: str, zipped: bool
) -> None:
    files = {f"{name}.gz": gzip.compress(content) for name, content in tiny_mnist.items()} if zipped else tiny_mnist
    write(tmp_path / "there" / place, files)
    folder = fetch("mnist", tmp_path / "here", from_folder=tmp_path / "there")
    assert on_disk(folder) == tiny_mnist


def test_an_altered_mnist_file_is_refused(tiny_mnist: Contents, tmp_path: Path) -> None:
    there = tmp_path / "there"
    write(there, {name: content[:-1] for name, content in tiny_mnist.items()})
    with pytest.raises(DataError, match=f"folder {there}: train-images-idx3-ubyte from {there} is truncated"):
        fetch("mnist", tmp_path / "here", from_folder=there)


def test_a_missing_mnist_file_is_named(tiny_mnist: Contents, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte, gzipped or not, in .*MNIST/raw or in"):
        fetch("mnist", tmp_path / "here", from_folder=tmp_path / "there")


@pytest.mark.parametrize("place", ["cifar-10-batches-bin", "."])
def test_the_binary_cifar10_is_read(
    tiny_cifar10: Contents, binary_batches: dict[str, bytes], tmp_path: Path, place: str
) -> None:
    write(tmp_path / "there" / place, binary_batches)
    folder = fetch("cifar10", tmp_path / "here", from_folder=tmp_path / "there")
    assert on_disk(folder) == tiny_cifar10


def test_a_missing_batch_is_named(binary_batches: dict[str, bytes], tmp_path: Path) -> None:
    del binary_batches["data_batch_3.bin"]
    write(tmp_path / "there", binary_batches)
    with pytest.raises(DataError, match=r"cannot read the binary version: .*data_batch_3\.bin"):
        fetch("cifar10", tmp_path / "here", from_folder=tmp_path / "there")


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "."])
def test_pickles_are_not_read(tiny_cifar10: Contents, tmp_path: Path, place: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    write(tmp_path / "there" / place, {"data_batch_1": pickle.dumps(Trap())})
    with pytest.raises(DataError, match=r"only the pickled version .* it never is; unpack cifar-10-binary\.tar\.gz"):
        fetch("cifar10", tmp_path / "here", from_folder=tmp_path / "there")
    assert not (tmp_path / "sprung").exists()
