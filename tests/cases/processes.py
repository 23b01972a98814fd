"""A module of the tests that runs in two processes at once, and what each of them has saved at the end."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WORLD = 2
ROOT = Path(__file__).parents[2]


@contextmanager
def pair(module: str, folder: Path) -> Iterator[list[Path]]:
    """Run a module in two processes, while this process does something else.

    Args:
        module: its name; the module ends with `work_and_save`.
        folder: where the processes meet, and save.

    Yields:
        The file of each process, which exists after the context.
    """
    saved = [folder / f"of {rank}" for rank in range(WORLD)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), folder / "init", file],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        for rank, file in enumerate(saved)
    ]
    try:
        yield saved
        printed = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD, "\n".join(printed)


def work_and_save(work: Callable[[int, int], Any]) -> None:
    """Meet the other process, work, and save what `work(rank, world)` returns; the command line says where."""
    rank, init, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{init}", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    torch.save(work(rank, WORLD), out)
    gc.collect()  # what refused passes have left, before the process group goes
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """Return a copy of a Tensor, gathered from all processes where it is sharded."""
    gather = getattr(tensor, "full_tensor", tensor.clone)
    full: Tensor = gather().detach()
    return full
