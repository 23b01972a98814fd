"""Fashion-MNIST from the Debian package: of an installed one, or of one that apt downloads."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from feedalign.errors import DataError
from feedalign.lab.data import fetch, fetching, load
from feedalign.lab.data.mnist_sources import debian_package
from feedalign.lab.data.stored import Contents

FakeClient = Callable[[str, str], Path]
MakeTar = Callable[[dict[str, bytes]], bytes]
FOLDER = "/usr/share/datasets/tiny"
PACKAGE = "dataset-tiny"


def ar(members: dict[str, bytes]) -> bytes:
    """An ar archive, as a Debian package is one."""
    content = b"!<arch>\n"
    for name, member in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}".encode() + b"`\n" + member
        content += b"\n" * (len(member) % 2)
    return content


def package(files: Contents, make_tar: MakeTar) -> bytes:
    inside = make_tar({f".{FOLDER}/{name}.gz": gzip.compress(content) for name, content in files.items()})
    return ar({"debian-binary": b"2.0\n", "control.tar.gz": b"odd", "data.tar.gz": inside})


def use(monkeypatch: pytest.MonkeyPatch, folder: str = FOLDER) -> None:
    monkeypatch.setitem(fetching.SOURCES, "fashion-mnist", (debian_package(PACKAGE, Path(folder)),))


def apt_delivers(fake_client: FakeClient, content: bytes) -> None:
    name = f"{PACKAGE}_0.1%7e2-1_all.deb"
    folder = fake_client("apt-get", f'test "$*" = "download {PACKAGE} -qq" && /bin/cp "$0.deb" "{name}"')
    (folder / "apt-get.deb").write_bytes(content)


def test_apt_delivers_and_leaves_nothing_else(
    tiny_fashion_mnist: Contents,
    fake_client: FakeClient,
    make_tar: MakeTar,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    use(monkeypatch)
    apt_delivers(fake_client, package(tiny_fashion_mnist, make_tar))
    folder = fetch("fashion-mnist", tmp_path / "root", source="debian", progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == tiny_fashion_mnist
    assert list(folder.parent.iterdir()) == [folder]
    assert load("fashion-mnist", tmp_path / "root").train_images.shape == (5, 1, 28, 28)


def test_an_installed_package_needs_no_download(
    tiny_fashion_mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = tmp_path / "installed"
    there.mkdir()
    for name, content in tiny_fashion_mnist.items():
        (there / f"{name}.gz").write_bytes(gzip.compress(content))
    use(monkeypatch, str(there))
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = fetch("fashion-mnist", tmp_path / "root", progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == tiny_fashion_mnist


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>log in first</html>", "is not a Debian package, or a truncated one"),
        (ar({"debian-binary": b"2.0\n"}), "is not a Debian package, or a truncated one"),
        (ar({"data.tar.gz": b"odd"}), r"data\.tar is not a tar file, or a truncated one"),
    ],
)
def test_what_is_no_package_is_told(
    tiny_fashion_mnist: Contents,
    fake_client: FakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: bytes,
    reason: str,
) -> None:
    use(monkeypatch)
    apt_delivers(fake_client, content)
    with pytest.raises(DataError, match=rf"debian {PACKAGE}: .*{reason}"):
        fetch("fashion-mnist", tmp_path / "root", progress=False)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_package_without_the_files_names_what_it_lacks(
    tiny_fashion_mnist: Contents,
    fake_client: FakeClient,
    make_tar: MakeTar,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    use(monkeypatch)
    apt_delivers(fake_client, package({"train-images-idx3-ubyte": b""}, make_tar))
    with pytest.raises(DataError, match=r"data\.tar lacks .*t10k-images-idx3-ubyte\.gz"):
        fetch("fashion-mnist", tmp_path / "root", progress=False)


def test_an_apt_that_fails_or_is_not_there_is_told_with_the_remedy(
    tiny_fashion_mnist: Contents, fake_client: FakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch)
    fake_client("apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    with pytest.raises(DataError, match=r"ended with code 100 \(E: Unable.*\n.*network, install apt, or take"):
        fetch("fashion-mnist", tmp_path / "root", progress=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="apt-get is not installed, or not on PATH"):
        fetch("fashion-mnist", tmp_path / "root", progress=False)
