"""DistributedDataParallel: two processes with half a batch each are one process with the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rules.two_processes import CASES, DROPPED, trained

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch without gloo"
)
SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return what the two processes ended with, what they told of layer dropout, and what one process alone ended with.

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
    ends = ("", ", with layer dropout")
    return [*(torch.load(folder / f"of {rank}{end}") for end in ends for rank in range(2)), alone]


# What would be drawn from a batch differs between the halves and the whole.
JOINED = [name for name in CASES if name != "DFA, aligned late"]


@pytest.mark.parametrize("case", JOINED)
def test_two_processes_are_one_on_the_joined_batch(states: list[Any], case: str) -> None:
    """Weights, and feedback that learns or not."""
    first, joined = (of_run[case] for of_run in (states[0], states[-1]))
    assert first.keys() == joined.keys()
    for name, tensor in joined.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_every_process_has_the_same_weights_and_feedback(states: list[Any], case: str) -> None:
    """Also where each was given another seed, or would draw its feedback from its own batch."""
    first, second = (of_run[case] for of_run in states[:2])
    assert any(name.startswith("feedback.") for name in first)
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor)


@pytest.mark.parametrize("rule", DROPPED)
def test_feedback_that_learns_in_processes_that_drop_other_layers_is_refused(states: list[Any], rule: Any) -> None:
    """They would add up what they learned of different layers. Where all drop one layer, they have one feedback."""
    first, second = states[2:4]
    alike, apart = f"{rule.__name__}, True", f"{rule.__name__}, False"
    assert first[alike] == second[alike]
    assert first[alike][0] == "["
    told = [one[apart] for one in (first, second)]
    if rule.learns_feedback:
        assert all("have not run the same points" in words and "from generators of one seed" in words for words in told)
    else:
        assert told[0] == told[1] == first[alike]
