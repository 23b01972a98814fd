"""StoredRun folders: what names them, when they are computed, and that they are whole or absent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from feedalign.errors import DataError
from feedalign.lab.runs import StoredRun, config_hash, environment, run_once, store


@dataclass(frozen=True)
class Config:
    name: str
    widths: tuple[int, ...]
    lr: float = 0.1
    seed: int = 0
    bias: bool = True


CONFIG = Config("a", (3, 4))
OTHER: dict[str, Any] = {"name": "b", "widths": (4, 3), "lr": 0.2, "seed": 1, "bias": False}


def result(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {"error": (("seed", "time"), rng.standard_normal((2, 3)), {"units": "1"})},
        coords={"time": ("time", [0.0, 0.5, 2.0], {"units": "epochs"}), "rule": ("rule", ["dfa", "backprop"])},
        attrs={"note": "α"},
    )


def never() -> xr.Dataset:
    raise AssertionError("computed again")


def everything(root: Path) -> list[Path]:
    """Every file but the locks, which stay."""
    return [path for path in root.rglob("*") if not path.is_dir() and path.parent.name != ".locks"]


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return run_once("test", CONFIG, result, tmp_path)


def test_every_field_decides_the_hash_defaults_included() -> None:
    hashes = {config_hash("test", CONFIG)}
    for field in fields(CONFIG):
        hashes.add(config_hash("test", replace(CONFIG, **{field.name: OTHER[field.name]})))
    assert len(hashes) == 1 + len(fields(CONFIG))


def test_a_default_hashes_as_the_same_value_written_out() -> None:
    assert config_hash("test", CONFIG) == config_hash("test", Config("a", (3, 4), lr=0.1, seed=0, bias=True))


def test_a_changed_default_and_a_new_field_change_the_hash() -> None:
    versions = [
        make_dataclass("Config", [("a", int, 1)], frozen=True),
        make_dataclass("Config", [("a", int, 2)], frozen=True),
        make_dataclass("Config", [("a", int, 1), ("b", int, 0)], frozen=True),
    ]
    assert len({config_hash("test", version()) for version in versions}) == 3


def test_experiment_and_schema_version_change_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = config_hash("test", CONFIG)
    assert config_hash("other", CONFIG) != before
    monkeypatch.setattr(store, "SCHEMA_VERSION", store.SCHEMA_VERSION + 1)
    assert config_hash("test", CONFIG) != before


def test_the_hash_does_not_depend_on_the_process() -> None:
    """Python salts its own hashes anew in every process; a name made of them would run every finished run again."""
    code = (
        "from dataclasses import make_dataclass; from feedalign.lab.runs import config_hash;"
        "print(config_hash('test', make_dataclass('C', [('name', str), ('lr', float)])('a', 0.1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = make_dataclass("C", [("name", str), ("lr", float)])
    assert done.stdout.strip() == config_hash("test", here("a", 0.1))


def test_the_same_config_is_computed_once(run: StoredRun, tmp_path: Path) -> None:
    again = run_once("test", Config("a", (3, 4)), never, tmp_path)
    assert again.folder == run.folder == tmp_path / "test" / config_hash("test", CONFIG)
    assert (again.config_hash, again.seconds) == (run.config_hash, run.seconds)
    xr.testing.assert_identical(again.dataset, run.dataset)


def test_another_config_is_computed_beside_it(run: StoredRun, tmp_path: Path) -> None:
    other = run_once("test", replace(CONFIG, seed=1), lambda: result(1), tmp_path)
    assert other.folder.parent == run.folder.parent
    assert not other.dataset.equals(run.dataset)
    assert len(list(run.folder.parent.iterdir())) == 2


def test_a_result_comes_back_as_it_was(run: StoredRun) -> None:
    xr.testing.assert_identical(run.dataset, result())
    assert run.dataset.error.dims == ("seed", "time")
    assert run.dataset.time.attrs == {"units": "epochs"}
    assert run.dataset.attrs == {"note": "α"}


def test_the_folder_says_what_was_run_where_and_for_how_long(run: StoredRun) -> None:
    assert sorted(path.name for path in run.folder.iterdir()) == ["config.json", "environment.json", "result.nc"]
    config = json.loads((run.folder / "config.json").read_text())
    assert config == {
        "experiment": "test",
        "schema_version": store.SCHEMA_VERSION,
        "config": {"name": "a", "widths": [3, 4], "lr": 0.1, "seed": 0, "bias": True},
    }
    made = json.loads((run.folder / "environment.json").read_text())
    assert environment().items() <= made.items()
    assert made["seconds"] == run.seconds >= 0


def test_the_environment_names_machine_and_versions() -> None:
    made = environment()
    assert made["python"] == sys.version.split()[0]
    assert made["cores"] >= 1
    assert {"feedalign", "torch", "numpy", "scipy", "xarray"} <= made["packages"].keys()
    json.dumps(made)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_a_broken_computation_leaves_nothing_and_can_be_done_again(tmp_path: Path, error: type[BaseException]) -> None:
    def broken() -> xr.Dataset:
        raise error("stop")

    with pytest.raises(error, match="stop"):
        run_once("test", CONFIG, broken, tmp_path)
    assert everything(tmp_path) == []
    xr.testing.assert_identical(run_once("test", CONFIG, result, tmp_path).dataset, result())


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, content: str) -> None:
        assert everything(tmp_path), "something is half-written at this moment"
        raise KeyboardInterrupt("stop")

    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        run_once("test", CONFIG, result, tmp_path)
    assert everything(tmp_path) == []


FULL_DISK = """
import resource, sys
from dataclasses import make_dataclass
from pathlib import Path
import numpy as np, xarray as xr
from feedalign.lab.runs import run_once

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
config = make_dataclass("Config", [("a", int, 1)], frozen=True)()
numbers = np.random.default_rng(0).random(200_000)
try:
    run_once("test", config, lambda: xr.Dataset({"x": ("t", numbers)}), Path(sys.argv[1]))
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.fault
def test_a_full_disk_leaves_nothing_says_what_to_do_and_crashes_nothing(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk; the write fails for real, in the system."""
    pytest.importorskip("resource")
    code = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"DataError cannot write {tmp_path}")
    assert "make room for 1,600,000 bytes, or choose another folder" in done.stdout
    assert everything(tmp_path) == []


def test_a_root_that_is_no_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*choose another folder"):
        run_once("test", CONFIG, result, tmp_path / "file")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    """Change one bit in the middle, among the numbers, where HDF5 itself notices nothing."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no result": lambda path: (path / "result.nc").unlink(),
    "short result": lambda path: shorten(path / "result.nc"),
    "flipped bit": lambda path: flip(path / "result.nc"),
    "no environment": lambda path: (path / "environment.json").unlink(),
    "short environment": lambda path: shorten(path / "environment.json"),
    "empty environment": lambda path: (path / "environment.json").write_text("{}"),
    "another environment": lambda path: (path / "environment.json").write_text("[1]"),
    "empty folder": empty,
}


@pytest.mark.fault
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_run_says_what_to_do(run: StoredRun, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    damage(run.folder)
    with pytest.raises(DataError, match=f"{run.folder} is no finished run .*; delete it and run again"):
        run_once("test", CONFIG, never, tmp_path)


@pytest.mark.fault
def test_two_runs_of_one_config_at_once_end_as_one(tmp_path: Path) -> None:
    """The second begins before the first is done, and waits for the first instead of computing."""
    begun = threading.Event()

    def compute() -> xr.Dataset:
        begun.set()
        time.sleep(0.5)
        return result(1)

    with ThreadPoolExecutor() as threads:
        first = threads.submit(run_once, "test", CONFIG, compute, tmp_path)
        begun.wait()
        second = run_once("test", CONFIG, never, tmp_path)
    xr.testing.assert_identical(first.result().dataset, second.dataset)
    assert [path.name for path in (tmp_path / "test").iterdir()] == [second.config_hash]
