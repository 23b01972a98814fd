"""Run folders: a result is computed once, and its folder's name is the hash of everything that decides it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from feedalign.errors import DataError
from feedalign.lab.files import replacing

# Part of every hash: raise it when the meaning of a config or the layout of a data set changes, and old runs stay
# where they are but are no longer taken for new ones.
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        folder: holds result.nc, config.json and environment.json.
        dataset: the result.
        config_hash: first 12 hexadecimal digits of the SHA-256 of the resolved config.
        seconds: wall time of the computation, whenever it was made.
        environment: what it was made with, as `environment` gives it.
    """

    folder: Path
    dataset: xr.Dataset
    config_hash: str
    seconds: float
    environment: dict[str, Any]


def config_hash(experiment: str, config: Any) -> str:
    """Hash every field of a config dataclass, defaults included, with the experiment's name and the schema version."""
    resolved = json.dumps(_resolved(experiment, config), sort_keys=True)
    return hashlib.sha256(resolved.encode()).hexdigest()[:12]


def run_once(experiment: str, config: Any, compute: Callable[[], xr.Dataset], root: Path) -> Run:
    """Return the run of this config, computing it only if `root` does not hold it yet.

    The folder `root/experiment/hash` appears whole or not at all, also on Ctrl-C or a full disk.

    Args:
        experiment: name of the experiment.
        config: frozen dataclass of plain values.
        compute: makes the result.
        root: folder of all runs.

    Raises:
        DataError: the folder cannot be written, or exists but cannot be read as a finished run.
    """
    key = config_hash(experiment, config)
    folder = root / experiment / key
    if not folder.exists():
        begin = time.perf_counter()
        dataset = compute()
        seconds = time.perf_counter() - begin
        try:
            with replacing(folder) as aside:
                aside.mkdir()
                # By way of memory: where HDF5 itself meets a full disk, Python crashes on its way out.
                content = bytes(dataset.to_netcdf(engine="h5netcdf"))
                (aside / "result.nc").write_bytes(content)
                _write_json(aside / "config.json", _resolved(experiment, config))
                made = {"seconds": round(seconds, 3), "result_sha256": hashlib.sha256(content).hexdigest()}
                _write_json(aside / "environment.json", {**environment(), **made})
        except OSError as error:
            raise DataError(
                f"cannot write {folder} ({error}); make room for {dataset.nbytes:,} bytes, or choose another folder"
            ) from error
    try:
        made = json.loads((folder / "environment.json").read_text())
        content = (folder / "result.nc").read_bytes()
        # HDF5 reads on over damage, to wrong numbers or to its own crash, so it is not left to notice.
        if hashlib.sha256(content).hexdigest() != made["result_sha256"]:
            raise ValueError("result.nc is truncated or altered")
        dataset = xr.load_dataset(io.BytesIO(content), engine="h5netcdf")
        return Run(folder, dataset, key, float(made["seconds"]), made)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no finished run ({error}); delete it and run again") from error


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


def _resolved(experiment: str, config: Any) -> dict[str, Any]:
    return {"experiment": experiment, "schema_version": SCHEMA_VERSION, "config": asdict(config)}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
