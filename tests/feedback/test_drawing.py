"""What every recipe's matrix is: drawn from the given generator alone, on the CPU, in memory of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import feedalign as fa
from feedalign import feedback
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.geometry import Geometry

F_1 = torch.linspace(-1, 1, 54).reshape(3, 18).T
LINK = feedback.Convolution(
    "0", "1", torch.linspace(-1, 1, 72).reshape(2, 4, 3, 3), Geometry((4, 3, 3), 2, padding=(1, 1))
)
PLACE = feedback.Place("1", 18, 3, (2, 3, 3), 36, seed=0, jacobian=F_1.T, convolutions=(LINK,))
RANDOM: list[Any] = [
    feedback.Gaussian(),
    feedback.Uniform(),
    feedback.Rademacher(),
    feedback.Orthogonal(),
    feedback.Sparse(0.5),
    feedback.Sparse(0.5, feedback.Aligned()),
    feedback.LowRank(2),
    feedback.LowRank(2, feedback.Orthogonal()),
    feedback.Channelwise(),
    feedback.Channelwise({"1": 2}),
    feedback.Shared(),
    feedback.Smooth(2),
    feedback.Toeplitz(),
    feedback.FromMask(),
    feedback.Magnitudes(),
    feedback.Tokenwise(),
    feedback.Tokenwise(feedback.Shared()),
    feedback.Sketched(2),
    feedback.Sketched(2, feedback.Channelwise()),
    feedback.InFull(feedback.Channelwise()),
    feedback.Automatic(),
    feedback.Conditioned(torch.eye(3) + 0.1),
]
CERTAIN: list[Any] = [feedback.Aligned(), feedback.FromWeights(), feedback.FromArray({"0": F_1.repeat(2, 1), "1": F_1})]
EVERY = RANDOM + CERTAIN
NAMES = [f"{i}-{type(recipe).__name__}" for i, recipe in enumerate(EVERY)]
SIZED = [recipe for recipe in RANDOM if not getattr(recipe, "needs_place", False)]


def image_net() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(18, 3))
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def matrices(recipe: feedback.Feedback, seed: int = 0) -> dict[str, torch.Tensor]:
    """Feedback of a model of two convolutions with 36 and 18 features and three outputs."""
    example = torch.ones(2, 1, 3, 3, dtype=torch.float32, device="cpu")
    return fa.DFA(image_net(), ("0", "1"), recipe, seed, example_input=example).feedback_matrices


def draw(recipe: feedback.Feedback, seed: int = 0) -> torch.Tensor:
    return recipe.draw(18, 3, torch.Generator().manual_seed(seed))


def draw_told(recipe: feedback.Feedback) -> torch.Tensor:
    """The matrix of the second point, by a recipe that is told all that a rule would tell it."""
    return feedback.draw_at(recipe, PLACE, torch.Generator("cpu").manual_seed(0))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_every_public_recipe_is_in_the_list() -> None:
    others = {"Convolution", "Factors", "Feedback", "Form", "Place"}
    recipes = {name for name in feedback.__all__ if name[0].isupper()} - others
    assert {type(recipe).__name__ for recipe in EVERY} == recipes


@pytest.mark.parametrize("recipe", EVERY, ids=NAMES)
def test_the_seed_decides_every_bit(recipe: feedback.Feedback) -> None:
    assert same(matrices(recipe), matrices(recipe))
    assert same(matrices(recipe), matrices(recipe, seed=1)) == (recipe in CERTAIN)


@pytest.mark.parametrize("recipe", SIZED, ids=lambda recipe: type(recipe).__name__)
def test_drawing_alone_the_generator_decides_every_bit(recipe: feedback.Feedback) -> None:
    assert torch.equal(draw(recipe), draw(recipe))
    assert not torch.equal(draw(recipe), draw(recipe, seed=1))


@pytest.mark.parametrize("recipe", EVERY, ids=NAMES)
def test_no_global_random_state_is_read_or_changed(recipe: feedback.Feedback) -> None:
    first = draw_told(recipe)
    torch.rand(1), np.random.random(1), random.random()  # noqa: NPY002 — the global state is what this is about
    states = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002
    assert torch.equal(draw_told(recipe), first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state(legacy=False)) == str(states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


@pytest.mark.parametrize("recipe", EVERY, ids=NAMES)
def test_a_matrix_is_contiguous_and_owns_its_memory(recipe: feedback.Feedback) -> None:
    drawn = [*matrices(recipe).values(), *matrices(recipe).values()]
    for matrix in drawn:
        assert matrix.is_contiguous()
        assert matrix.untyped_storage().nbytes() == matrix.numel() * matrix.itemsize
        assert not matrix.requires_grad
    assert len({matrix.untyped_storage().data_ptr() for matrix in drawn}) == 4


def test_drawing_alone_an_array_is_copied() -> None:
    matrix = draw(feedback.FromArray(F_1))
    assert torch.equal(matrix, F_1)
    assert matrix.is_contiguous()
    assert matrix.data_ptr() != F_1.data_ptr()


@pytest.mark.parametrize("recipe", SIZED, ids=lambda recipe: type(recipe).__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_default_device_and_default_dtype_change_nothing(
    recipe: feedback.Feedback, dtype: torch.dtype, default_dtype: Callable[[torch.dtype], None]
) -> None:
    expected = draw(recipe)
    assert expected.device.type == "cpu"
    assert expected.dtype == torch.float32
    default_dtype(dtype)
    with torch.device("meta"):
        found = recipe.draw(18, 3, torch.Generator("cpu").manual_seed(0))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("recipe", EVERY, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_nor_do_they_where_a_recipe_is_told_of_a_place(
    recipe: feedback.Feedback, dtype: torch.dtype, default_dtype: Callable[[torch.dtype], None]
) -> None:
    expected = draw_told(recipe)
    default_dtype(dtype)
    with torch.device("meta"):
        found = draw_told(recipe)
    assert found.device.type == "cpu"
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.fixture
def default_dtype() -> Any:
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


class Own:
    """A recipe of a user's own, which gives the same object each time."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Any:
        return self.matrix


def test_what_a_user_s_recipe_gives_is_copied() -> None:
    matrix = torch.ones(3, 6, requires_grad=True)
    net = fa.DFA(fa.networks.MLP([4, 6, 6, 3]), feedback=Own(matrix.T))
    one, other = net.feedback_matrices.values()
    assert torch.equal(one, matrix.T)
    assert one.is_contiguous()
    assert not one.requires_grad
    assert len({matrix.data_ptr(), one.data_ptr(), other.data_ptr()}) == 3


@pytest.mark.parametrize(
    ("matrix", "fault"),
    [
        (torch.full((6, 3), torch.inf), "a matrix that is not finite"),
        (torch.ones(6, 3, dtype=torch.complex64), "a matrix that is complex"),
        (torch.ones(6, 3).to_sparse(), "a matrix that is sparse"),
        (torch.ones(6, 3, dtype=torch.bool), "a matrix that is boolean"),
        (torch.ones(6, 3, device="meta"), "a matrix that is on the meta device"),
        (np.ones((6, 3)), "a ndarray, expected a Tensor"),
        (None, "a NoneType, expected a Tensor"),
    ],
)
def test_what_is_no_dense_matrix_of_finite_real_numbers_is_told(matrix: Any, fault: str) -> None:
    with pytest.raises(ArgumentError, match=f"gave '1' {fault}"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=Own(matrix))


@pytest.mark.filterwarnings("ignore:.*quant:UserWarning")  # torch warns, once a process, that these functions will go
def test_a_quantized_matrix_is_told() -> None:
    matrix = torch.quantize_per_tensor(torch.ones(6, 3), 0.1, 0, torch.qint8)
    with pytest.raises(ArgumentError, match="gave '1' a matrix that is quantized"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=Own(matrix))


def test_a_recipe_that_draws_another_shape_is_told() -> None:
    with pytest.raises(FeedbackShapeError, match=r"gave '1' a matrix of shape \(3, 6\), expected \(6, 3\)"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=Own(torch.zeros(3, 6)))
    with pytest.raises(FeedbackShapeError, match=r"gave a matrix of shape \(3, 6\), expected \(6, 2\)"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=feedback.LowRank(2, Own(torch.zeros(3, 6))))


def test_a_scale_that_is_too_large_for_the_matrix_is_told() -> None:
    with pytest.raises(ArgumentError, match=r"Gaussian\(scale=1e\+300\) gave '1' a matrix that is not finite"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=feedback.Gaussian(1e300))


def test_whole_numbers_become_floating_point_numbers() -> None:
    whole = torch.arange(18).reshape(6, 3)
    halved = feedback.Conditioned(torch.eye(3) / 2, feedback.FromArray(whole))
    assert torch.equal(halved.draw(6, 3, torch.Generator()), whole / 2)


@pytest.mark.parametrize("value", [torch.nan, "meta"])
def test_feedback_computed_from_weights_without_numbers_is_refused(value: Any) -> None:
    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to("meta") if value == "meta" else torch.full_like(tensor, value)

    assert PLACE.jacobian is not None
    aligned = replace(PLACE, jacobian=spoilt(PLACE.jacobian))
    fitted = replace(PLACE, convolutions=(replace(LINK, kernel=spoilt(LINK.kernel)),))
    generator = torch.Generator()
    with pytest.raises(ArgumentError, match=r"the Jacobian at '1' is (not finite|on the meta device)"):
        feedback.draw_at(feedback.Aligned(), aligned, generator)
    with pytest.raises(ArgumentError, match=r"the kernel between '0' and '1' is (not finite|on the meta device)"):
        feedback.draw_at(feedback.FromWeights(), fitted, generator)


@pytest.mark.parametrize("recipe", RANDOM, ids=lambda recipe: type(recipe).__name__)
def test_any_seed_that_torch_takes_is_taken(recipe: feedback.Feedback) -> None:
    assert same(matrices(recipe, seed=-1), matrices(recipe, seed=-1))
    # Toeplitz draws six signs here and nothing else, so two seeds may well give the same matrices.
    assert not all(same(matrices(recipe, seed=-1), matrices(recipe, seed=other)) for other in (1, 2, 3))
