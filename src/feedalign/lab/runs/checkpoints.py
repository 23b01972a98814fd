"""Checkpoints of one run: tensors and plain values, from which a killed run goes on to the same result."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedalign.errors import DataError
from feedalign.lab.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

EVERY = 60.0  # seconds of work that a killed run loses at most
KEEP = 2  # the last one, and one in case the last one is damaged
SHARE = 0.01  # of a run's time that saving may take


@dataclass(frozen=True)
class State:
    """What a run has reached.

    Attributes:
        tensors: by name.
        values: what JSON can hold, by name.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class Checkpoints:
    """Where one run saves its state. A checkpoint is a folder that appears whole or not at all.

    Args:
        folder: of the unfinished run; made when something is saved.
        every: seconds between two checkpoints. Where saving takes long there are fewer, so that saving takes no more
            than one hundredth of the time.
    """

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        self.folder, self.every = folder, every
        self.begun = self.last = time.monotonic()
        self.earlier = 0.0  # seconds that went into what was loaded

    def seconds(self) -> float:
        """Return how long the run has computed, in this attempt and in those whose state was loaded."""
        return self.earlier + time.monotonic() - self.begun

    def due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        return time.monotonic() - self.last >= self.every

    def save(self, state: State) -> None:
        """Write a checkpoint, then remove all but the last two.

        Raises:
            DataError: the folder cannot be written; the checkpoints before are kept.
        """
        from safetensors.torch import save  # only here: the theory's command needs no torch

        begin = time.monotonic()
        here = self._numbered()
        number = here[-1][0] + 1 if here else 0
        tensors = save({name: tensor.contiguous() for name, tensor in state.tensors.items()})
        values = json.dumps({"seconds": self.seconds(), "values": dict(state.values)}, sort_keys=True).encode()
        contents = {"tensors.safetensors": tensors, "values.json": values, "sha256": _digest(tensors, values)}
        try:
            with replacing(self.folder / f"checkpoint-{number:06d}") as aside:
                aside.mkdir()
                for name, content in contents.items():
                    with (aside / name).open("wb") as file:
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())  # on the disk before the folder gets its name, also if the power fails
        except OSError as error:
            raise DataError(
                f"cannot write a checkpoint into {self.folder} ({error}); make room for {len(tensors):,} bytes and run "
                "the same command again: it goes on from the checkpoint before"
            ) from error
        # Of this run nobody else writes anything now: what is half-written was left by a process that was killed.
        for old in [*(path for _, path in here[: 1 - KEEP]), *self.folder.glob(".checkpoint-*")]:
            shutil.rmtree(old, ignore_errors=True)
        self.last = time.monotonic()
        self.every = max(self.every, (self.last - begin) / SHARE)

    def load(self) -> State | None:
        """Return the state of the last whole checkpoint; None if there is none. A damaged one is named in a warning."""
        from safetensors.torch import load

        for _, path in reversed(self._numbered()):
            try:
                tensors, values = (path / "tensors.safetensors").read_bytes(), (path / "values.json").read_bytes()
                if _digest(tensors, values) != (path / "sha256").read_bytes():
                    raise ValueError("it is truncated or altered")
                content = json.loads(values)
            except (OSError, ValueError) as error:
                text = f"the checkpoint {path} cannot be used ({error}); the run goes on from the one before, if any"
                self.log(text)
                warnings.warn(text, stacklevel=2)
                continue
            self.earlier = content["seconds"]
            self.log(f"goes on from {path.name}, after {self.earlier:.0f} s of work")
            return State(load(tensors), content["values"])
        return None

    def log(self, text: str) -> None:
        """Add a line to the log file of the run, with date and time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _numbered(self) -> list[tuple[int, Path]]:
        """Return the checkpoints that are there, the oldest first."""
        paths = self.folder.glob("checkpoint-*")
        return sorted((int(path.name.removeprefix("checkpoint-")), path) for path in paths)


def _digest(tensors: bytes, values: bytes) -> bytes:
    return hashlib.sha256(tensors + values).hexdigest().encode()
