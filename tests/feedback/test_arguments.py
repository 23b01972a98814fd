"""Every recipe refuses every wrong argument when it is made, and says what was got and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pytest
import torch

import feedalign as fa
from feedalign import feedback
from feedalign.checks import shown
from feedalign.errors import ArgumentError, FeedbackShapeError

NAN, INF = float("nan"), float("inf")
TEXT: list[Any] = ["0.5", "", b"1"]
NO_NUMBERS: list[Any] = [True, False, np.True_, torch.tensor(0.5), torch.ones(2), np.ones(2), 1j, [1], {}, object()]
ODD = [*TEXT, *NO_NUMBERS, NAN, INF, -INF, np.float32("nan"), -1, -1e-9, 10**400]
ODD_COUNTS = [*ODD, 0, 1.5, 2**63, 1e30]
ODD_RECIPES = [None, feedback.Gaussian, 0.5, "gaussian", torch.ones(3, 3), object()]
ODD_MATRICES = [
    None,
    True,
    0.5,
    "eye",
    [],
    [1.0, 2.0],
    [["a"]],
    [[NAN]],
    [[True]],
    [[1j]],
    [[1.0], [2.0, 3.0]],
    np.array([[INF]]),
    torch.tensor([[NAN]]),
    torch.ones(2),
    torch.ones(2, 2, 2),
    torch.ones(0, 2),
    torch.ones(2, 2, dtype=torch.bool),
    torch.ones(2, 2, dtype=torch.complex64),
    torch.ones(2, 2).to_sparse(),
    torch.ones(2, 2, device="meta"),
]

ARGUMENTS: list[tuple[Callable[[Any], Any], str, list[Any]]] = [
    *((recipe, "scale", ODD) for recipe in (feedback.Gaussian, feedback.Uniform, feedback.Rademacher)),
    *((recipe, "scale", [None, *ODD]) for recipe in (feedback.Orthogonal, feedback.Aligned)),
    (feedback.Sparse, "density", [None, 0, 1 + 1e-9, 2, *ODD]),
    (feedback.LowRank, "rank", [None, *ODD_COUNTS]),
    (feedback.Sketched, "rank", [None, *ODD_COUNTS]),
    (feedback.Smooth, "modes", [None, *ODD_COUNTS]),
    (feedback.Channelwise, "channels", [odd for odd in ODD_COUNTS if not isinstance(odd, dict)]),
    (lambda odd: feedback.Channelwise({"1": odd}), "channels['1']", [None, *ODD_COUNTS]),
    (lambda odd: feedback.Channelwise({odd: 4}), "a name in channels", [None, 1, True, ("1",)]),
    (feedback.FromArray, "arrays", ODD_MATRICES),
    (lambda odd: feedback.FromArray({"1": odd}), "arrays['1']", [*ODD_MATRICES, {}]),
    (lambda odd: feedback.FromArray({odd: [[1.0]]}), "a name in arrays", [None, 1, True, ("1",)]),
    (feedback.Conditioned, "P", [*ODD_MATRICES, {}]),
]
CASES = [(make, name, odd) for make, name, values in ARGUMENTS for odd in values]


@pytest.mark.parametrize(
    ("make", "name", "odd"), CASES, ids=[f"{name}-{type(odd).__name__}-{i}" for i, (_, name, odd) in enumerate(CASES)]
)
def test_a_wrong_argument_is_refused_by_name(make: Callable[[Any], Any], name: str, odd: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{re.escape(name)} must (be|hold) "):
        make(odd)


WITH_A_BASE: dict[type, dict[str, Any]] = {
    **{getattr(feedback, name): {} for name in ("Sparse", "LowRank", "Channelwise", "Shared", "Smooth", "Toeplitz")},
    **{getattr(feedback, name): {} for name in ("FromMask", "FromWeights", "Magnitudes")},
    **{getattr(feedback, name): {} for name in ("Tokenwise", "Sketched", "InFull")},
    feedback.Conditioned: {"P": torch.eye(3)},
}


def test_every_recipe_and_every_field_is_tried() -> None:
    """Lists of arguments above would otherwise miss a recipe, or a field, that is added later."""
    tried = {(make, name) for make, name, _ in ARGUMENTS} | {(recipe, "base") for recipe in WITH_A_BASE}
    recipes = [getattr(feedback, name) for name in feedback.__all__]
    fields = {
        (recipe, field.name)
        for recipe in recipes
        if hasattr(recipe, "draw") and is_dataclass(recipe)
        for field in fields_of(recipe)
        if field.init
    }
    assert fields <= tried


@pytest.mark.parametrize("recipe", WITH_A_BASE, ids=lambda recipe: recipe.__name__)
def test_a_base_must_be_a_recipe(recipe: Any) -> None:
    for odd in ODD_RECIPES:
        with pytest.raises(ArgumentError, match=f"base={re.escape(shown(odd))} is no recipe; give an instance such as"):
            recipe(base=odd, **WITH_A_BASE[recipe])


BOUND_TO_A_PLACE = [
    feedback.Aligned(),
    feedback.Smooth(),
    feedback.Toeplitz(),
    feedback.Channelwise(),
    feedback.FromArray({"1": [[1.0]]}),
    feedback.Sparse(0.5, feedback.Aligned()),
    feedback.Magnitudes(feedback.Conditioned(torch.eye(3), feedback.Smooth())),
]


@pytest.mark.parametrize(
    "recipe", [feedback.LowRank, feedback.Channelwise, feedback.Shared, feedback.Smooth, feedback.Tokenwise]
)
@pytest.mark.parametrize("base", BOUND_TO_A_PLACE, ids=repr)
def test_a_matrix_of_one_point_cannot_be_drawn_at_another_size(recipe: Any, base: Any) -> None:
    with pytest.raises(ArgumentError, match="makes the matrix of one particular point, and would here be"):
        recipe(base=base)


def test_what_is_right_is_kept_as_plain_numbers() -> None:
    half: Any = np.float32(0.5)
    two: Any = np.int64(2)
    three: Any = 3.0
    assert feedback.Gaussian(half) == feedback.Gaussian(0.5)
    assert feedback.Gaussian(0).scale == 0
    assert repr(feedback.LowRank(three)) == "LowRank(rank=3, base=Gaussian(scale=None))"
    assert feedback.Sparse(1).density == 1
    assert feedback.Channelwise({"1": two}) == feedback.Channelwise({"1": 2})
    assert type(feedback.Smooth(two).modes) is int


def test_a_mapping_that_changes_later_changes_no_recipe() -> None:
    channels, arrays = {"1": 2}, {"1": torch.ones(6, 3)}
    recipes = feedback.Channelwise(channels), feedback.FromArray(arrays)
    channels["1"], arrays["1"] = 0, torch.full((6, 3), NAN)
    for recipe in recipes:
        assert len(fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=recipe).feedback_matrices["1"]) == 6


def test_a_conditioner_is_square() -> None:
    with pytest.raises(FeedbackShapeError, match=r"P has shape \(2, 3\), expected a square matrix"):
        feedback.Conditioned(torch.zeros(2, 3))
