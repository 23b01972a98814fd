"""The feedback of a wrapped model: its recipe, its seed, and the matrices as buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.checks import whole_number
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback import Feedback, Place, check_recipe, draw_at
from feedalign.streams import torch_generator


class Matrices(nn.Module):
    """Feedback matrices by point, [features, outputs], drawn once from a recipe or loaded from a saved state.

    They are buffers, so they are saved, moved and cast with the model, and no optimizer sees them.

    Args:
        recipe: draws each matrix.
        seed: seed of the matrices. Each point has a generator of its own, derived from the seed and the point's name.

    Attributes:
        keys: the buffers' names, by point.
        places: what the matrices were drawn for.
        unset: whether the matrices hold no numbers yet, since they were drawn for a model on the meta device. Once the
            model is on another device (`to_empty`), they hold whatever the memory held, until they are drawn again.
    """

    def __init__(self, recipe: Feedback, seed: int) -> None:
        super().__init__()
        check_recipe(recipe)
        seed = whole_number("seed", seed, at_least=-(2**63), at_most=2**64 - 1)
        self.recipe, self.seed = recipe, seed
        self.keys: dict[str, str] = {}
        self.places: tuple[Place, ...] = ()
        self.unset = False
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_see_what_was_loaded)  # type: ignore[no-untyped-call]

    def by_point(self) -> dict[str, Tensor]:
        """Return the matrices by point, in the order in which they were drawn."""
        return {point: self.get_buffer(key) for point, key in self.keys.items()}

    def __getitem__(self, point: str) -> Tensor:
        matrix: Tensor = getattr(self, self.keys[point])
        return matrix

    def draw(self, places: Sequence[Place], model: nn.Module) -> None:
        """Draw the matrix of each place that has none yet, with the device and the precision of the model.

        Raises:
            ArgumentError: an entry is too large for the precision of the model.
            FeedbackShapeError: a matrix that was loaded does not fit its place.
        """
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        self.places = tuple(replace(place, jacobian=None) for place in places)
        for place in places:
            expected = place.features, place.outputs
            if place.name not in self.keys:
                # A stream for each point: a point that is drawn later gets no numbers of a point drawn before.
                generator = torch_generator(self.seed, "feedback", place.name)
                matrix = draw_at(self.recipe, place, generator)
                if (largest := float(matrix.abs().max())) > torch.finfo(like.dtype).max:
                    raise ArgumentError(
                        f"the feedback of {place.name!r} has an entry of size {largest:.3g}, which is infinite in the "
                        f"model's {like.dtype}; give the recipe a smaller scale, or the model float32"
                    )
                self.put(place.name, matrix.to(device=like.device, dtype=like.dtype))
            elif (found := tuple(self[place.name].shape)) != expected:
                raise FeedbackShapeError(
                    f"the feedback of {place.name!r} has shape {found}, expected {expected}, features by outputs; load "
                    "a state of this model, or wrap the model again after a change of its shape"
                )
        self.unset = like.is_meta

    def draw_again(self, model: nn.Module) -> None:
        """Draw every matrix anew, as the recipe and the seed say, for the device and the precision of the model."""
        self.forget()
        self.draw(self.places, model)

    def forget(self) -> None:
        """Drop every matrix."""
        for key in self.keys.values():
            delattr(self, key)
        self.keys.clear()
        self.unset = False

    def put(self, point: str, matrix: Tensor) -> None:
        """Hold this matrix for a point."""
        self.keys[point] = _key(point)
        self.register_buffer(self.keys[point], matrix)


def _key(point: str) -> str:
    # Names of buffers must hold no dot.
    return point.replace("/", "\\").replace(".", "/")


def _make_room(matrices: Matrices, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded into a model whose shapes are not known yet, make buffers of the saved shapes."""
    saved = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
    if not matrices.keys:
        for key, value in saved.items():
            point = key.removeprefix(prefix).replace("/", ".").replace("\\", "/")
            matrices.put(point, torch.empty_like(value))
    elif all(f"{prefix}{key}" in saved for key in matrices.keys.values()):
        matrices.unset = False


def _see_what_was_loaded(matrices: Matrices, _keys: Any) -> None:
    """After a state was loaded, note if nothing was: on the meta device torch only warns of that."""
    matrices.unset = matrices.unset or any(matrix.is_meta for matrix in matrices.by_point().values())
