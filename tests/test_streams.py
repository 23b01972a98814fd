"""Streams: what they are derived from, and that nothing in the house draws from any other source."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import feedalign
from feedalign.streams import derived_seed, numpy_generator, torch_generator

SOURCE = Path(feedalign.__file__).parent
# Files that make a generator without `streams`, and why they may.
OTHER_SOURCES = {
    "streams.py": "the derivation itself",
    "diagnosis/users_code.py": "seeds the global generators, from which a user's own model and data draw",
    "theory/convolution/fitting.py": "begins a solver with fixed numbers, whose result does not depend on them",
}
SEEDING = {"default_rng", "Generator", "RandomState", "PCG64", "SeedSequence", "manual_seed", "seed"}


def test_the_numbers_are_these_on_every_machine() -> None:
    assert derived_seed(0, "weights") == 6656493951571055214
    assert derived_seed(1, "feedback", "layers.1") == 7304944657707708541
    assert numpy_generator(0, "weights").integers(1000, size=4).tolist() == [847, 908, 872, 830]
    drawn = torch.randint(1000, (4,), generator=torch_generator(0, "weights"))
    assert drawn.tolist() == [329, 145, 282, 496]


def test_python_s_salted_hash_plays_no_part() -> None:
    code = "from feedalign.streams import derived_seed; print(derived_seed(3, 'start', 'a', 1))"
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": salt, "PYTHONPATH": str(SOURCE.parent)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert int(done.stdout) == derived_seed(3, "start", "a", 1)


def test_seeds_and_purposes_give_distinct_seeds_in_range() -> None:
    seeds = [*range(64), 2**31, 2**32, 2**32 + 1, 2**63 - 1]
    purposes: list[Any] = [
        ("weights",),
        ("feedback", "1"),
        ("feedback", 1),
        ("feedback", 1, 2),
        ("feedback", 12),
        ("order",),
    ]
    derived = [derived_seed(seed, *purpose) for seed, purpose in itertools.product(seeds, purposes)]
    assert len(set(derived)) == len(derived)
    assert all(0 <= each < 2**63 for each in derived)


def test_a_purpose_is_not_what_its_parts_spell_together() -> None:
    assert derived_seed(0, "ab", "c") != derived_seed(0, "a", "bc")
    assert derived_seed(0, "a", "b") != derived_seed(0, "ab")
    assert derived_seed(0, "a", "é") != derived_seed(0, "a", "e")


def test_seeds_that_differ_in_the_upper_bits_only_are_different_seeds() -> None:
    """By itself, torch's generator on the CPU reads the lower 32 bits of its seed and no others."""
    one, other = (torch.rand(8, generator=torch_generator(seed, "weights")) for seed in (5, 5 + 2**32))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("seed", [-1, -(2**63)])
def test_negative_seeds_are_seeds(seed: int) -> None:
    assert derived_seed(seed, "feedback") == derived_seed(seed % 2**64, "feedback")


def test_a_generator_begins_anew_and_leaves_the_global_ones_alone() -> None:
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    one, other = (numpy_generator(2, "start").random(5) for _ in range(2))
    assert (one == other).all()
    first, second = (torch.rand(5, generator=torch_generator(2, "start")) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]  # noqa: NPY002


def seeding_calls(code: str) -> list[int]:
    """The lines of a file that make a generator or seed one."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id) in SEEDING
    ]  # fmt: skip


def test_no_other_file_makes_a_generator() -> None:
    found = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if seeding_calls(file.read_text(encoding="utf-8"))
    }
    assert found == set(OTHER_SOURCES)


@pytest.mark.parametrize(
    "code", ["np.random.default_rng(0)", "torch.Generator().manual_seed(0)", "default_rng([1, 2])", "random.seed(0)"]
)
def test_the_search_for_generators_finds(code: str) -> None:
    assert seeding_calls(code)
