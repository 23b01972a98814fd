"""Folders that torchvision made are read; pickles in them are read without being run."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from feedalign.errors import DataError
from feedalign.lab.data import cifar_sources, fetch, fetching
from feedalign.lab.data.stored import Contents

Pickled = Callable[[bytes, int, str], bytes]


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
    with pytest.raises(DataError, match=r"cannot read cifar-10-batches-bin: .*data_batch_3\.bin"):
        fetch("cifar10", tmp_path / "here", from_folder=tmp_path / "there")


@pytest.mark.parametrize("place", ["FashionMNIST/raw", "raw", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_is_found_beside_mnist(
    tiny_fashion_mnist: Contents, tmp_path: Path, place: str, zipped: bool
) -> None:
    files = {
        f"{name}{'.gz' * zipped}": gzip.compress(content) if zipped else content
        for name, content in tiny_fashion_mnist.items()
    }
    write(tmp_path / "there" / place, files)
    assert on_disk(fetch("fashion-mnist", tmp_path / "here", from_folder=tmp_path / "there")) == tiny_fashion_mnist


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "."])
def test_the_pickles_of_cifar10_are_read(
    tiny_cifar10: Contents, binary_batches: dict[str, bytes], pickled: Pickled, tmp_path: Path, place: str
) -> None:
    batches = {name.removesuffix(".bin"): pickled(content, 1, "labels") for name, content in binary_batches.items()}
    write(tmp_path / "there" / place, batches)
    assert on_disk(fetch("cifar10", tmp_path / "here", from_folder=tmp_path / "there")) == tiny_cifar10


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "."])
def test_pickles_are_never_run(tiny_cifar10: Contents, tmp_path: Path, place: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    write(tmp_path / "there" / place, dict.fromkeys(names, pickle.dumps(Trap())))
    with pytest.raises(DataError, match="not a pickled batch: it holds 0 labels and 0 bytes of pixels"):
        fetch("cifar10", tmp_path / "here", from_folder=tmp_path / "there")
    assert not (tmp_path / "sprung").exists()


def as_published(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let the digests of tiny files stand in for the published ones of CIFAR-100."""
    tiny = replace(cifar_sources.CIFAR100, **changes)
    monkeypatch.setitem(fetching.FOLDERS, "cifar100", partial(cifar_sources.torchvision_folder, of=tiny))


def pictures(folder: Path) -> Contents:
    return {name: content for name, content in on_disk(folder).items() if not name.endswith(".sha256")}


def test_the_archive_of_cifar100_is_read(
    tiny_cifar100: Contents,
    cifar100_files: dict[str, bytes],
    make_tar: Callable[[dict[str, bytes]], bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    archive = make_tar({f"cifar-100-binary/{name}": content for name, content in cifar100_files.items()})
    write(tmp_path / "there", {"cifar-100-binary.tar.gz": archive})
    as_published(monkeypatch, archive_md5=hashlib.md5(archive).hexdigest())
    assert pictures(fetch("cifar100", tmp_path / "here", from_folder=tmp_path / "there")) == tiny_cifar100


def test_the_pickles_of_cifar100_are_read_if_they_are_what_was_published(
    tiny_cifar100: Contents,
    cifar100_files: dict[str, bytes],
    pickled: Pickled,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    files = {name.removesuffix(".bin"): pickled(content, 2, "fine_labels") for name, content in cifar100_files.items()}
    write(tmp_path / "there" / "cifar-100-python", files)
    with pytest.raises(DataError, match=r"train is truncated or altered: its md5 is .*, expected 16019d7e"):
        fetch("cifar100", tmp_path / "here", from_folder=tmp_path / "there")
    digests = tuple(hashlib.md5(content).hexdigest() for content in files.values())
    as_published(monkeypatch, pickled=replace(cifar_sources.CIFAR100.pickled, digests=digests))
    assert pictures(fetch("cifar100", tmp_path / "here", from_folder=tmp_path / "there")) == tiny_cifar100


def test_files_of_cifar100_that_nobody_vouches_for_are_refused(
    tiny_cifar100: Contents, cifar100_files: dict[str, bytes], tmp_path: Path
) -> None:
    write(tmp_path / "there" / "cifar-100-binary", cifar100_files)
    with pytest.raises(DataError, match=r"have no published digests; put cifar-100-binary\.tar\.gz beside them"):
        fetch("cifar100", tmp_path / "here", from_folder=tmp_path / "there")


def test_a_folder_without_any_version_says_what_it_lacks(tiny_cifar100: Contents, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of cifar-100-binary\.tar\.gz, cifar-100-binary and cifar-100-python is"):
        fetch("cifar100", tmp_path / "here", from_folder=tmp_path)
