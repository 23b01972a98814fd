"""Checkpoints come back as they were saved; a damaged one is named, and the one before is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from feedalign.errors import DataError
from feedalign.lab.runs import Checkpoints, State


def state(number: int) -> State:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T + number, "count": torch.tensor(number)}
    return State(tensors, {"step": number, "rates": [0.1, 1e-300]})


def same(one: State | None, other: State) -> bool:
    assert one is not None
    assert dict(one.values) == dict(other.values)
    return all(torch.equal(one.tensors[name], tensor) for name, tensor in other.tensors.items())


def saved(folder: Path, count: int) -> list[Path]:
    checkpoints = Checkpoints(folder)
    for number in range(count):
        checkpoints.save(state(number))
    return sorted(folder.glob("checkpoint-*"))


def test_nothing_saved_is_nothing_to_load(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "not there").load() is None


def test_the_last_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    assert len(saved(tmp_path, 5)) == 2
    assert same(Checkpoints(tmp_path).load(), state(4))


def test_seconds_of_all_attempts_add_up(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    first.begun -= 100
    first.save(state(0))
    second = Checkpoints(tmp_path)
    second.load()
    assert second.seconds() >= 100


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "short tensors": lambda path: shorten(path / "tensors.safetensors"),
    "flipped bit": lambda path: flip(path / "tensors.safetensors"),
    "short values": lambda path: shorten(path / "values.json"),
    "no values": lambda path: (path / "values.json").unlink(),
    "empty digest": lambda path: (path / "sha256").write_text(""),
}


@pytest.mark.fault
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    last = saved(tmp_path, 3)[-1]
    damage(last)
    with pytest.warns(UserWarning, match=f"the checkpoint {last} cannot be used"):
        assert same(Checkpoints(tmp_path).load(), state(1))
    assert f"the checkpoint {last} cannot be used" in (tmp_path / "log.txt").read_text()


@pytest.mark.fault
def test_a_full_disk_keeps_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 2)

    def full(_file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"cannot write a checkpoint into .*No space left.*make room for [\d,]+ bytes"):
        Checkpoints(tmp_path).save(state(2))
    assert same(Checkpoints(tmp_path).load(), state(1))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "checkpoint-000000",
        "checkpoint-000001",
    ]


def test_slow_saving_makes_checkpoints_rarer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))  # every look at the clock takes ten seconds
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    checkpoints = Checkpoints(tmp_path, every=1.0)
    checkpoints.save(state(0))
    assert checkpoints.every >= 1000  # saving took at least 10 seconds
