"""The folder of all runs: where a run lies, how its result is written and read back, and who may compute it now."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import xarray as xr

from feedalign.errors import DataError
from feedalign.lab.files import make_folder, replacing

# Part of every hash: raise it when the meaning of a config or the layout of a data set changes, and old runs stay
# where they are but are no longer taken for new ones.
SCHEMA_VERSION = 3
KEPT = "kept"  # folder of the files that an unfinished run puts beside its result
WAIT = 0.2  # seconds between two looks at a lock that somebody else holds


@dataclass(frozen=True)
class StoredRun:
    """One finished run.

    Attributes:
        folder: holds result.nc, config.json, environment.json, log.txt if the run logged anything, and the files that
            the run has put beside its result (`Desk.keep`).
        dataset: the result.
        config_hash: first 12 hexadecimal digits of the SHA-256 of the resolved config.
        seconds: wall time of the computation, whenever it was made; of all its parts if it was interrupted.
        environment: what it was made with, as `environment` gives it.
    """

    folder: Path
    dataset: xr.Dataset
    config_hash: str
    seconds: float
    environment: dict[str, Any]


class RunStore:
    """The runs in one folder. A run is named by its kind and by its config, a frozen dataclass of plain values.

    A run of kind `kind` and hash `hash` lies in root/kind/hash. While it is computed, its checkpoints and its log lie
    in root/kind/hash.work, and whoever computes it holds the lock root/kind/.hash.lock. The operating system takes
    the lock back when its owner is gone, however that came about, so no lock is ever stale.

    Args:
        root: folder of all runs; made when the first run is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def folder(self, kind: str, config: Any) -> Path:
        """Return the folder of a run, finished or not."""
        return self.root / kind / config_hash(kind, config)

    def work_folder(self, kind: str, config: Any) -> Path:
        """Return the folder that holds what an unfinished run has reached."""
        folder = self.folder(kind, config)
        return folder.with_name(folder.name + ".work")

    def has(self, kind: str, config: Any) -> bool:
        """Return whether the run is finished."""
        return self.folder(kind, config).exists()

    @contextmanager
    def claimed(self, kind: str, config: Any, *, wait: bool) -> Iterator[bool]:
        """Hold the right to compute a run; gives whether the right was had.

        While somebody else has the right, `wait` waits for it; without `wait`, this gives False.

        Raises:
            DataError: the folder cannot be written, or its file system has no locks.
        """
        folder = self.folder(kind, config)
        lock = filelock.FileLock(lock_file(folder), thread_local=False)
        try:
            _acquire(lock, folder.parent, wait)
        except filelock.Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            raise DataError(f"cannot write {folder} ({error}); choose another folder") from error
        try:
            yield True
        finally:
            # A process that waits with the removed file open and a process that makes a new file would both get a lock.
            # Neither of them computes a run that is finished. Where there is something to go on from, the file stays.
            # A run that was refused leaves no trace.
            if folder.exists() or not self.work_folder(kind, config).exists():
                lock_file(folder).unlink(missing_ok=True)
            lock.release()
            for place in (folder.parent, self.root):
                with contextlib.suppress(OSError):  # not empty
                    place.rmdir()

    def write(self, kind: str, config: Any, dataset: xr.Dataset, seconds: float) -> None:
        """Write a result; its folder appears whole or not at all, also on Ctrl-C or a full disk.

        Called by the owner of the run's lock, so everything else that stands there in the run's name is left over.

        Raises:
            DataError: the folder cannot be written.
        """
        folder, work = self.folder(kind, config), self.work_folder(kind, config)
        for left_over in folder.parent.glob(f".{folder.name}.*"):
            if left_over.is_dir():
                shutil.rmtree(left_over, ignore_errors=True)
        try:
            with replacing(folder) as aside:
                aside.mkdir()
                # By way of memory: where HDF5 itself meets a full disk, Python crashes on its way out.
                content = bytes(dataset.to_netcdf(engine="h5netcdf"))
                (aside / "result.nc").write_bytes(content)
                _write_json(aside / "config.json", resolved(kind, config))
                made = {"seconds": round(seconds, 3), "result_sha256": hashlib.sha256(content).hexdigest()}
                _write_json(aside / "environment.json", {**environment(), **made})
                if (work / "log.txt").exists():
                    shutil.copyfile(work / "log.txt", aside / "log.txt")
                for file in (work / KEPT).glob("[!.]*"):
                    shutil.copyfile(file, aside / file.name)
        except OSError as error:
            raise DataError(
                f"cannot write {folder} ({error}); make room for {dataset.nbytes:,} bytes, or choose another folder"
            ) from error
        shutil.rmtree(work, ignore_errors=True)

    def write_once(
        self, kind: str, config: Any, compute: Callable[[], tuple[xr.Dataset, float]], *, wait: bool = True
    ) -> bool:
        """Compute a run and write its result unless the run is finished; return whether the run is finished now.

        `compute` returns the result, and the seconds that its computation took. While somebody else computes the run,
        `wait` waits for the result; without `wait`, this returns False.

        Raises:
            DataError: the folder cannot be written.
        """
        if self.has(kind, config):
            return True
        with self.claimed(kind, config, wait=wait) as mine:
            if mine and not self.has(kind, config):  # who held the lock may have finished the run
                self.write(kind, config, *compute())
        return mine

    def read(self, kind: str, config: Any) -> StoredRun:
        """Return a finished run.

        Raises:
            DataError: there is none, it is damaged, or a newer version of feedalign has made it.
        """
        folder = self.folder(kind, config)
        try:
            schema = json.loads((folder / "config.json").read_text())["schema_version"]
            if schema > SCHEMA_VERSION:
                raise ValueError(f"it has schema {schema}, this version of feedalign reads {SCHEMA_VERSION} and below")
            made = json.loads((folder / "environment.json").read_text())
            content = (folder / "result.nc").read_bytes()
            # HDF5 reads on over damage, to wrong numbers or to its own crash, so it is not left to notice.
            if hashlib.sha256(content).hexdigest() != made["result_sha256"]:
                raise ValueError("result.nc is truncated or altered")
            dataset = xr.load_dataset(io.BytesIO(content), engine="h5netcdf")
            return StoredRun(folder, dataset, folder.name, float(made["seconds"]), made)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder} is no finished run ({error}); delete it and run again") from error


def lock_file(folder: Path) -> Path:
    """Return the file that whoever computes the run of a folder holds locked."""
    return folder.with_name(f".{folder.name}.lock")


def _acquire(lock: filelock.BaseFileLock, parent: Path, wait: bool) -> None:
    for attempt in range(10):
        make_folder(parent)
        try:
            lock.acquire(timeout=-1 if wait else 0, poll_interval=WAIT)
            return
        except FileNotFoundError:  # somebody has just removed the folder, which was empty
            if attempt == 9:
                raise


def config_hash(kind: str, config: Any) -> str:
    """Hash every field of a config dataclass, defaults included, with the kind of run and the schema version."""
    text = json.dumps(resolved(kind, config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def resolved(kind: str, config: Any) -> dict[str, Any]:
    """Return everything that decides a result."""
    return {"experiment": kind, "schema_version": SCHEMA_VERSION, "config": asdict(config)}


def environment() -> dict[str, Any]:
    """Return what a result may depend on besides its config: machine and versions."""
    packages = ("feedalign", "torch", "numpy", "scipy", "numba", "xarray", "scikit-learn")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
