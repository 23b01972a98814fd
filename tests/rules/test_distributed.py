"""DistributedDataParallel: two processes with half a batch each are one process with the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.rules.two_processes import CASES, trained
from torch import Tensor

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch without gloo"
)
SCRIPT = Path(__file__).parent / "two_processes.py"
States = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[States]:
    """Return what the two processes ended with, and what one process alone ended with, by case.

    Processes take seconds to start, so they start once, and this process does the work of the one alone meanwhile.
    """
    folder = tmp_path_factory.mktemp("processes")
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), "2", folder / "init", folder / f"of {rank}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        with torch.random.fork_rng([]):
            alone = {name: trained(case, 0, 1) for name, case in CASES.items()}
        printed = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    return [*(torch.load(folder / f"of {rank}") for rank in range(2)), alone]


# What would be drawn from a batch differs between the halves and the whole.
JOINED = [name for name in CASES if name != "DFA, aligned late"]


@pytest.mark.parametrize("case", JOINED)
def test_two_processes_are_one_on_the_joined_batch(states: list[States], case: str) -> None:
    """Weights, and feedback that learns or not."""
    first, _, joined = (of_run[case] for of_run in states)
    assert first.keys() == joined.keys()
    for name, tensor in joined.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_every_process_has_the_same_weights_and_feedback(states: list[States], case: str) -> None:
    """Also where each was given another seed, or would draw its feedback from its own batch."""
    first, second, _ = (of_run[case] for of_run in states)
    assert any(name.startswith("feedback.") for name in first)
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor)
