"""Archives are read in memory, by exact name, and broken ones are errors."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from feedalign.errors import DataError
from feedalign.lab.data.archives import gunzip, tar_members

MakeTar = Callable[[dict[str, bytes]], bytes]


def test_gunzip_undoes_gzip() -> None:
    content = bytes(range(256)) * 100
    assert gunzip(gzip.compress(content)) == content


@pytest.mark.parametrize(
    "content", [b"<html>log in first</html>", gzip.compress(b"x" * 999, mtime=0)[:-9], b"\x1f\x8b\x08"]
)
def test_gunzip_refuses_what_is_no_whole_gzip_file(content: bytes) -> None:
    with pytest.raises(DataError, match="not a gzip file, or a truncated one"):
        gunzip(content)


def test_members_come_by_exact_name_whatever_their_order(make_tar: MakeTar, tmp_path: Path) -> None:
    members = {"a/x": b"no", "x": b"1", "../x": b"no", "y": b"2" * 9999, "x.bak": b"no"}
    path = tmp_path / "some.tar"
    path.write_bytes(make_tar(members))
    assert tar_members(path, ["y", "x"]) == {"x": b"1", "y": b"2" * 9999}
    assert list(tmp_path.rglob("*")) == [path]


def test_missing_members_are_named(make_tar: MakeTar, tmp_path: Path) -> None:
    path = tmp_path / "some.tar"
    path.write_bytes(make_tar({"x": b"1"}))
    with pytest.raises(DataError, match=r"some\.tar lacks y, z$"):
        tar_members(path, ["z", "x", "y"])


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("link")
            link.type, link.linkname = kind, str(tmp_path / "secret")
            archive.addfile(link)
    with pytest.raises(DataError, match="lacks link"):
        tar_members(path, ["link"])


@pytest.mark.parametrize("keep", [0, 100, -20])
def test_broken_archives_are_refused(make_tar: MakeTar, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "some.tar"
    path.write_bytes(make_tar({"x": bytes(range(256)) * 99, "y": b"2"})[:keep])
    with pytest.raises(DataError, match="not a tar file, or a truncated one"):
        tar_members(path, ["x", "y"])
