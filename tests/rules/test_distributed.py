"""DistributedDataParallel: two processes with half a batch each are one process with the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.processes import pair
from tests.rules.two_processes import CASES, DROPPED, trained

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch without gloo"
)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return what the two processes ended with, what they told of layer dropout, and what one process alone ended with.

    Processes take seconds to start, so they start once, and this process does the work of the one alone meanwhile.
    """
    with pair("tests.rules.two_processes", tmp_path_factory.mktemp("processes")) as saved, torch.random.fork_rng([]):
        alone = {name: trained(case, 0, 1) for name, case in CASES.items()}
    first, second = map(torch.load, saved)
    return [first[0], second[0], first[1], second[1], alone]


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
