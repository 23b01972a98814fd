"""`replacing`: a path is complete or absent, at any time, for any reader."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from feedalign.errors import ArgumentError
from feedalign.lab.files import check_file, data_folder, make_folder, replacing


def test_a_file_is_replaced_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    for content in ("old", "new"):
        before = path.read_text() if path.exists() else None
        with replacing(path) as aside:
            aside.write_text(content)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_whole_and_an_existing_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for content in ("first", "second"):
        with replacing(path) as aside:
            aside.mkdir()
            (aside / "a").write_text(content)
        assert (path / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_leaves_what_was_there(tmp_path: Path, error: type[BaseException], existing: bool) -> None:
    path = tmp_path / "page.html"
    if existing:
        path.write_text("old")

    def broken() -> None:
        with replacing(path) as aside:
            aside.write_text("half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        broken()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"] * existing


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="page"), replacing(tmp_path / "page"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_never_disappears_into_a_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(IsADirectoryError, match="page"), replacing(tmp_path / "page") as aside:
        aside.write_text("lost?")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_writers_at_once_leave_one_whole_file_and_readers_see_whole_ones_only(tmp_path: Path) -> None:
    path, size, rounds, writers = tmp_path / "page", 20_000, 20, 4
    torn: list[str] = []
    done = threading.Event()

    def write(letter: str) -> None:
        for _ in range(rounds):
            with replacing(path) as aside:
                aside.write_text(letter * size)

    def read() -> None:
        while not done.is_set():
            text = path.read_text()
            if text != text[:1] * size:
                torn.append(text)

    path.write_text("-" * size)
    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"[:writers]]
    reader.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert torn == []
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text()[0] in "abcd"


def test_folders_built_at_once_end_as_one_of_them(tmp_path: Path) -> None:
    path, barrier = tmp_path / "run", threading.Barrier(4)

    def build(letter: str) -> None:
        with replacing(path) as aside:
            aside.mkdir()
            for name in ("x", "y"):
                (aside / name).write_text(letter)
            barrier.wait()

    threads = [threading.Thread(target=build, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "x").read_text() == (path / "y").read_text() in "abcd"


def test_the_data_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEEDALIGN_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("FEEDALIGN_DATA", "")
    assert data_folder().name == "feedalign"


def test_folders_of_any_depth_are_made(tmp_path: Path) -> None:
    """`Path.mkdir(parents=True)` calls itself once a folder, and Python's stack ends before the longest path does."""
    path = tmp_path.joinpath(*["a"] * 1500)
    make_folder(path)
    make_folder(path)
    assert path.is_dir()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError, match="file/below"):
        make_folder(file / "below")
    while path != tmp_path:  # one after the other, since pytest's own cleaning calls itself as well
        path.rmdir()
        path = path.parent


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(ArgumentError, match="report=/dev/null is a device or a pipe, not a file"):
        check_file("report", Path(os.devnull))
