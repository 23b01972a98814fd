"""The feedback of a wrapped model: its recipe, its seed, and the numbers that its matrices are made of, as buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from feedalign.checks import whole_number
from feedalign.errors import ArgumentError, FeedbackShapeError, PointsError
from feedalign.feedback import (
    Factors,
    Feedback,
    Form,
    Place,
    check_recipe,
    dense_sketch,
    draw_at,
    draw_signs,
    draw_stored,
    form_at,
    outputs_per_column,
    sketched,
)
from feedalign.streams import torch_generator

# Names of what all points share. No point has such a key: the name of a point does not begin with a dot.
SHARED, SKETCH = "/shared", "/sketch"


class Matrices(nn.Module):
    """Feedback matrices by point, drawn once from a recipe or loaded from a saved state.

    Of each matrix the numbers are held that the recipe says: all entries, or the few numbers of a `Form`. They are
    buffers, so they are saved, moved and cast with the model, and no optimizer sees them.

    Args:
        recipe: draws each matrix.
        seed: seed of the matrices. Each point has a generator of its own, derived from the seed and the point's name.
        in_full: whether every matrix is held with all its entries, whatever the recipe says.

    Attributes:
        keys: the names of the points' buffers, by point.
        forms: how the matrices are made of the buffers, by point; of a state that was loaded before the shapes at the
            points were known, there are no forms yet.
        places: what the matrices were drawn for.
        unset: whether the matrices hold no numbers yet, since they were drawn for a model on the meta device. Once the
            model is on another device (`to_empty`), they hold whatever the memory held, until they are drawn again.
    """

    def __init__(self, recipe: Feedback, seed: int, *, in_full: bool = False) -> None:
        super().__init__()
        check_recipe(recipe)
        seed = whole_number("seed", seed, at_least=-(2**63), at_most=2**64 - 1)
        self.recipe, self.seed, self.in_full = recipe, seed, in_full
        self.keys: dict[str, str] = {}
        self.forms: dict[str, Form] = {}
        self.places: tuple[Place, ...] = ()
        self.unset = False
        self.register_buffer(SKETCH, None)
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_see_what_was_loaded)  # type: ignore[no-untyped-call]

    def check_drawn(self) -> None:
        """Raise PointsError if the shapes at the points are not known yet."""
        if not self.forms:
            raise PointsError(
                "the feedback is not drawn yet, since the shapes at the points are not known; "
                "give example_input=, or run one forward pass"
            )

    def by_point(self) -> dict[str, Tensor]:
        """Return F of every point, [features, outputs], in the order in which they were drawn.

        A matrix that is held with all its entries is the buffer itself. Any other is made now.
        """
        return {place.name: self._with_all_entries(place) for place in self.places if place.name in self.forms}

    def factors(self, point: str) -> Factors | None:
        """Return F of a point as a product of small factors; None if the point has no matrix."""
        for place in self.places:
            if place.name == point and point in self.forms:
                return Factors.of(self.forms[point], self[point], place.features, self._signs())
        return None

    def __getitem__(self, point: str) -> Tensor:
        """Return the numbers that are held for a point."""
        matrix: Tensor = getattr(self, self.keys[point])
        return matrix

    @property
    def sketch(self) -> Float[Tensor, "outputs rank"] | None:
        """R with all its entries, made now; None if there is no R."""
        signs, point = self._signs(), next(iter(self.keys), None)
        return None if signs is None or point is None else dense_sketch(signs, self[point].shape[1], self[point])

    def sketched(self, message: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch columns"]:
        """Return the message times R; the message itself if there is no R."""
        signs = self._signs()
        if signs is None:
            return message
        some = self[next(iter(self.keys))]
        # A message in half precision is added up in the feedback's precision.
        return sketched(message.to(some.dtype), signs, some.shape[1])

    def projected(self, error: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch columns"]:
        """Return the numbers c for which R c is next to the error; the error itself if there is no R."""
        signs = self._signs()
        if signs is None:
            return error
        seen = self.sketched(error)
        return seen / outputs_per_column(len(signs), seen.shape[-1], seen)

    def draw(self, places: Sequence[Place], model: nn.Module) -> None:
        """Draw the matrix of each place that has none yet, with the device and the precision of the model.

        Raises:
            ArgumentError: an entry is too large for the precision of the model.
            FeedbackShapeError: a matrix that was loaded does not fit its place.
        """
        numbers = (p for p in model.parameters() if p.is_floating_point() or p.is_complex())
        like = next((p.real if p.is_complex() else p for p in numbers), torch.empty(0))
        for place in places:
            shapes = {point: self[point].shape for point in self.keys}
            form = self._form_of(place, shapes, sketch=self._signs() is not None)
            key = SHARED if form.shared else _key(place.name)
            if not hasattr(self, key):
                # A stream for each point: a point that is drawn later gets no numbers of a point drawn before.
                generator = torch_generator(self.seed, "feedback", place.name)
                drawn = (draw_at if form.is_full else draw_stored)(self.recipe, place, generator)
                self._put(key, drawn, place, like)
            if form.sketched and self._signs() is None:
                self.register_buffer(SKETCH, draw_signs(place).to(like.device))
            self.keys[place.name], self.forms[place.name] = key, form
            self._check_shapes(place, form)
        self.places = tuple(replace(place, jacobian=None) for place in places)
        self.unset = like.is_meta

    def forget(self) -> None:
        """Drop every matrix."""
        for key in list(self._buffers_held()):
            delattr(self, key)
        self.register_buffer(SKETCH, None)
        self.keys.clear()
        self.forms.clear()
        self.unset = False

    def arrange(self, saved: Mapping[str, Tensor]) -> None:
        """Make buffers of the shapes that a saved state has.

        A state may hold a matrix with all its entries where the recipe says few numbers, as states of earlier versions
        do. The matrix is then held so here as well.
        """
        shapes = {point: saved[_key(point)].shape for point in self.keys if _key(point) in saved}
        forms = {place.name: self._form_of(place, shapes, sketch=SKETCH in saved) for place in self.places}
        if not self.forms or forms == self.forms:
            return
        like = self[next(iter(self.keys))]
        before = self._buffers_held()
        self.forget()
        for place in self.places:
            form = self.forms[place.name] = forms[place.name]
            key = self.keys[place.name] = SHARED if form.shared else _key(place.name)
            needed = {key: like.new_zeros(form.stored_shape)}
            if form.sketched:
                needed[SKETCH] = like.new_zeros(place.outputs, dtype=torch.int8)
            for name, room in needed.items():
                if name not in before or before[name].shape != room.shape:
                    before[name] = room
                self.register_buffer(name, before[name])

    def _form_of(self, place: Place, held: Mapping[str, torch.Size], *, sketch: bool) -> Form:
        """Return the recipe's form of a place, unless a matrix with all its entries is held for the place.

        `held` has the shapes of what is held, or saved, by point; `sketch` says whether an R is.
        """
        full = Form.full(place)
        if self.in_full:
            return full
        form = form_at(self.recipe, place)
        own = held.get(place.name)
        of_the_form = own == form.stored_shape and not form.shared and (sketch or not form.sketched)
        return full if own == full.stored_shape and not of_the_form else form

    def _check_shapes(self, place: Place, form: Form) -> None:
        """Raise FeedbackShapeError unless what is held for a place has the shape that its form says."""
        meaning = "features by outputs" if form.is_full else "rows by columns of what is stored"
        stored: tuple[int, ...] = form.stored_shape
        shapes = [(f"the feedback of {place.name!r}", self[place.name], stored, meaning)]
        signs = self._signs()
        if form.sketched and signs is not None:
            shapes.append(("the sketch of the outputs", signs, (place.outputs,), "a sign for each output"))
        for name, held, expected, meaning in shapes:
            if tuple(held.shape) != expected:
                raise FeedbackShapeError(
                    f"{name} has shape {tuple(held.shape)}, expected {expected}, {meaning}; load a state of this "
                    "model, or wrap the model again after a change of its shape"
                )

    def _with_all_entries(self, place: Place) -> Tensor:
        form = self.forms[place.name]
        if form.is_full:
            return self[place.name]
        return form.matrix(self[place.name], place.features, self.sketch if form.sketched else None)

    def _put(self, key: str, matrix: Tensor, place: Place, like: Tensor) -> None:
        """Hold what was drawn as a buffer, with the device and the precision of a parameter of the model."""
        if (largest := float(matrix.abs().max())) > torch.finfo(like.dtype).max:
            raise ArgumentError(
                f"the feedback of {place.name!r} has an entry of size {largest:.3g}, which is infinite in the "
                f"model's {like.dtype}; give the recipe a smaller scale, or the model float32"
            )
        self.register_buffer(key, matrix.to(device=like.device, dtype=like.dtype))

    def _signs(self) -> Int8[Tensor, " outputs"] | None:
        """Return the signs of R; None if there is no R."""
        found: Tensor | None = getattr(self, SKETCH)
        return found

    def _buffers_held(self) -> dict[str, Tensor]:
        return dict(self.named_buffers(recurse=False))


def _key(point: str) -> str:
    # Names of buffers must hold no dot.
    return point.replace("/", "\\").replace(".", "/")


def _make_room(matrices: Matrices, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded, make buffers of the saved shapes where they are not known, or are others."""
    saved = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    if not matrices.keys:
        for key, value in saved.items():
            matrices.register_buffer(key, torch.empty_like(value))
            if key not in (SHARED, SKETCH):
                matrices.keys[key.replace("/", ".").replace("\\", "/")] = key
        return
    matrices.arrange(saved)
    if all(key in saved for key, _ in matrices.named_buffers(recurse=False)):
        matrices.unset = False


def _see_what_was_loaded(matrices: Matrices, _keys: Any) -> None:
    """After a state was loaded, note if nothing was: on the meta device torch only warns of that."""
    matrices.unset = matrices.unset or any(buffer.is_meta for buffer in matrices.buffers(recurse=False))
