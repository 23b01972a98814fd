"""Unpack what sources send, in memory: members by exact name, nothing written by a path an archive chose."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from feedalign.errors import DataError

# What gzip and tarfile raise on bytes that are not theirs, or that end too early.
_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError)
_MAGIC, _HEADER = b"!<arch>\n", 60  # of an ar archive, which a Debian package is


def gunzip(content: bytes) -> bytes:
    """Return the bytes that were compressed; a DataError if `content` is no whole gzip file."""
    try:
        return gzip.decompress(content)
    except _BROKEN as error:
        raise DataError(f"not a gzip file, or a truncated one ({error})") from error


def tar_members(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Return the regular files of exactly these names in a tar file (plain or gzipped); links are never followed.

    Raises:
        DataError: a name is not there, or the archive is broken.
    """
    wanted, found = set(names), dict[str, bytes]()
    try:
        with tarfile.open(path) as archive:
            # In the archive's order: a gzipped tar is unpacked again from its start for every step back.
            for member in archive:
                if member.name in wanted and member.isreg() and (file := archive.extractfile(member)):
                    found[member.name] = file.read()
    except _BROKEN as error:
        raise DataError(f"{path.name} is not a tar file, or a truncated one ({error})") from error
    if missing := sorted(wanted - found.keys()):
        raise DataError(f"{path.name} lacks {', '.join(missing)}")
    return found


def debian_tar(package: Path) -> bytes:
    """Return the tar file, compressed, with what a Debian package installs: one member of an ar archive.

    Raises:
        DataError: there is no such member, or the archive is broken.
    """
    content = package.read_bytes()
    at = len(_MAGIC)
    while content.startswith(_MAGIC) and at + _HEADER <= len(content):
        header = content[at : at + _HEADER]
        size = header[48:58].strip()
        if not size.isdigit():
            break
        begin, at = at + _HEADER, at + _HEADER + int(size) + int(size) % 2
        if header.startswith(b"data.tar"):
            return content[begin : begin + int(size)]
    raise DataError(f"{package.name} is not a Debian package, or a truncated one")
