"""How the loops of the shallow theory are compiled, and where what was compiled is kept.

numba keeps compiled functions in files, and trusts such a file as long as the source file of the function is the same.
That is not enough here: a function also contains the functions it calls, which stand in other files. So this room gives
numba a folder whose name holds the hash of all its source files. After any change of any file the folder is a new one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickletools
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar, cast

import numba

Compiled = TypeVar("Compiled", bound=Callable[..., Any])

# numba sets these attributes when it is imported, where no type checker sees them.
_NUMBA: Any = numba.config
_ROOM = Path(__file__).resolve().parent


def _places() -> Iterator[Path]:
    """Yield where compiled functions may be kept, the best place first; the order is numba's own."""
    if _NUMBA.CACHE_DIR:  # NUMBA_CACHE_DIR: the user has chosen
        yield Path(_NUMBA.CACHE_DIR)
        return
    yield _ROOM / "__pycache__"
    if os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.environ["XDG_CACHE_HOME"]) / "feedalign"
    try:
        yield Path.home() / ".cache" / "feedalign"
    except RuntimeError:  # this user has no home
        return


def _folder() -> Path | None:
    """Return the folder for these source files, made and cleaned of damaged files; None where none can be written."""
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(_ROOM.glob("*.py")))).hexdigest()[:16]
    # A place can serve several installations, which must not throw away each other's folders.
    installation = f"feedalign-{hashlib.sha256(str(_ROOM).encode()).hexdigest()[:8]}"
    for place in _places():
        folder = place / f"{installation}-{sources}"
        try:
            older = [] if folder.exists() else list(place.glob(f"{installation}-*"))
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
            _throw_damaged_files_away(folder)
        except OSError:
            continue
        for each in older:
            shutil.rmtree(each, ignore_errors=True)
        return folder
    logging.getLogger("feedalign").warning(
        "feedalign.theory.shallow found no folder it can write to, so its functions are compiled anew in every process "
        "(up to a minute). Set the environment variable NUMBA_CACHE_DIR to a folder that can be written."
    )
    return None


def _throw_damaged_files_away(folder: Path) -> None:
    """Delete the files that are not pickles from beginning to end: numba would fail on them, and compiles what is gone.

    A file is damaged where a disk was full, a copy broke off or a machine went down.
    """
    for file in folder.rglob("*.nb[ic]"):
        content = file.read_bytes()
        if not _holds_pickles(content):
            file.unlink(missing_ok=True)


def _holds_pickles(content: bytes) -> bool:
    """Whether bytes are one or more pickles, one after the other; they are read but never executed."""
    stream = BytesIO(content)
    try:
        while True:
            for _ in pickletools.genops(stream):
                pass
            if stream.tell() == len(content):
                return True
    except Exception:  # whatever the bytes happen to mean to pickletools, from ValueError to UnicodeDecodeError
        return False


_FOLDER = _folder()


def compiled(function: Compiled) -> Compiled:
    """Compile with numba, cached on disk, without the interpreter lock so that seeds can run in threads.

    Every sum is taken in the order in which it is written. This makes results the same to the last bit in all
    processes: machine code holds a copy of a function in each of its callers, which copy runs depends on what the
    process has compiled and what it has read from disk, and with reordered sums the copies round differently.
    """
    return _compiled(function, fastmath=False)


def compiled_with_reordered_sums(function: Compiled) -> Compiled:
    """Compile as `compiled` does, but let sums be reordered and fused; a long sum then takes half the time or less.

    Only for a function that no compiled function calls: of such a function there is a single copy. NaN and infinity
    keep their meaning.
    """
    return _compiled(function, fastmath={"contract", "nsz", "arcp", "reassoc"})


def _compiled(function: Compiled, fastmath: bool | set[str]) -> Compiled:
    chosen, _NUMBA.CACHE_DIR = _NUMBA.CACHE_DIR, str(_FOLDER or "")
    try:  # numba asks for the folder when a function is decorated
        dispatcher = numba.njit(cache=_FOLDER is not None, nogil=True, error_model="numpy", fastmath=fastmath)(function)
    finally:
        _NUMBA.CACHE_DIR = chosen
    return cast(Compiled, dispatcher)
