"""Rules that send the error down layer by layer, through other weights than the layers' own."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from feedalign.anatomy import Entries, ErrorTap, Mask, check_points, evaluating, place_problems, tensors_in
from feedalign.errors import ArgumentError, PointsError
from feedalign.feedback import Feedback, Place
from feedalign.rules.accounting import account_for
from feedalign.rules.sequential.checking import refusal_of, unknown
from feedalign.rules.sequential.known_layers import known_layer
from feedalign.rules.sequential.linear_layer import LinearLayer
from feedalign.rules.sequential.passing import LayerByLayer, LayerHooks
from feedalign.rules.wrapped import Wrapped


class SequentialRule(Wrapped):
    r"""A rule that passes the error down layer by layer, with other weights in place of the transposed ones.

    .. math:: δ_{l-1} = (B_l δ_l) ⊙ g'(a_{l-1}) \quad\text{instead of}\quad (W_l^T δ_l) ⊙ g'(a_{l-1})

    The gradients of a layer's own parameters are the true ones given δ_l. Whatever holds no weight matrix passes the
    error on as in backprop: activations, normalisation, pooling, attention between layers.

    `feedback_matrices` has B_l [fan-in, outputs] by layer; fan-in is inputs × kernel for a convolution. The default
    scale 1/√features of a recipe is 1/√fan-in here. Copies of a layer, with weights [..., out, in], share one B_l.

    Args:
        model: any module. The rule uses this module itself, not a copy.
        points: dotted names of the *layers* whose transposed weight is replaced. A layer is one by its class: `Linear`,
            convolutions and transposed convolutions (any stride, padding, dilation, groups), `EnsembleLinear`,
            `TiledConv2d`, `UnrolledConv2d`, their subclasses, and classes that are registered with
            `register_linear_layer`. "auto" takes every layer that runs, except one that is the first module with
            parameters to run: its input carries no error.
        feedback: recipe of B_l; Gaussian of standard deviation 1/√fan-in unless given.
        seed: seed of the feedback, which has a generator of its own.
        example_input: one input of the model (a tuple for several); then the matrices are there before the first pass.
        output: see `DirectRule`; used by the tools that look at the error at the output.
        batch_dims: see `DirectRule`; used by the tools that look at the error at the output.
        error_at: see `DirectRule`; used by the tools that look at the error. A loss that the model computes itself
            trains under a sequential rule without this argument.
        mask: must be None. The argument is refused in words, since padding is sent what the layers above let through,
            as in backprop.

    Attributes:
        points: names of the layers, in the order in which they run once that is known.
        known: by layer, how it holds its weight and what it computes with the weight; empty until the matrices are
            drawn.

    Raises:
        PointsError: a name is unknown or repeated, a layer never runs, its class is not known, or its output is not
            what its class computes: a `Linear` with noise, rounding or an adapter is not simply W x + b. In a learning
            pass: a layer runs without gradients, or its module has been replaced.
        ArgumentError: `feedback` is no recipe, `batch_dims` is no number of axes, or a `mask` is given.
    """

    holds_in_full: ClassVar[bool] = True
    real_weights: ClassVar[bool] = False  # whether the rule needs weights that are real numbers

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        output: Entries = None,
        batch_dims: int | None = None,
        error_at: str | Iterable[str] | None = None,
        mask: Mask = None,
    ) -> None:
        if mask is not None:
            raise ArgumentError(
                f"{type(self).__name__} sends the error down layer by layer, so padding is sent what the layers above "
                "let through, as in backprop, and there is nothing to mask; leave mask= out"
            )
        super().__init__(model, feedback, seed, ErrorTap.given(output, batch_dims, error_at))
        if wrong := place_problems(model, self.error_tap.places, ()):
            raise PointsError("; ".join(f"error_at: {problem}" for problem in wrong))
        self.auto = isinstance(points, str) and points == "auto"
        self.points = self._candidates() if self.auto else self._checked(check_points(model, points))
        self.known: dict[str, LinearLayer] = {}
        self.places: list[Place] = []
        self.hooked = {name: model.get_submodule(name) for name in self.points}
        for name, layer in self.hooked.items():
            hooks = LayerHooks(self.slot, name)
            self.handles += [
                layer.register_forward_pre_hook(hooks.before),
                layer.register_forward_hook(hooks.after),
            ]
        self.prepare_early(example_input)

    def backward_weight(self, matrix: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG002 — a subclass may use it
        """Return what replaces a weight in the backward pass, in its shape.

        Args:
            matrix: B_l, as stored, in the shape of the weight.
            weight: W_l, detached.
        """
        return matrix

    @torch.no_grad()
    def backward_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return W_l and what now replaces it in the backward pass, in its shape, by layer.

        Raises:
            PointsError: the feedback is not drawn yet.
        """
        pairs = {}
        for name, matrix in self.feedback_matrices.items():
            known = self.known[name]
            weight = known.weight_now(self.model.get_submodule(name))
            pairs[name] = weight, self.backward_weight(known.as_weight(matrix, weight.shape), weight)
        return pairs

    def learn(self, matrix: Tensor, gradient: Tensor) -> None:
        """Change B_l in place; called if `learns_feedback`, each time the error has gone through B_l.

        The change has no effect on what this pass sends. B_l becomes the mean over the processes that train together. A
        change that is not finite is left out.

        Args:
            matrix: B_l, [fan-in, outputs].
            gradient: of the loss with respect to W_l as the rule has it, in the shape of B_l.
        """

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on the rule's graph and return its output."""
        passing = LayerByLayer(self)
        output = self.run_under(passing, args, kwargs)
        account_for(self, passing.names, output)
        if self.error_tap.entry is not None and not self.error_tap.places:
            self.error_tap.of(output)
        if not torch.compiler.is_compiling():
            # Activation checkpointing may repeat parts of the forward pass, under a pass like this one.
            repeat = LayerByLayer(self)
            for tensor in tensors_in(output):
                if tensor.grad_fn is not None:
                    tensor.grad_fn.register_prehook(lambda *_: self.slot.enter_backward(lambda: repeat))
        return output

    @torch.no_grad()
    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        """Return the layers to replace, in the order in which they run; each has given what its class computes."""
        ran = self._layers_that_run(args, kwargs)
        if missing := [name for name in self.points if name not in ran and not self.auto]:
            raise PointsError(f"points that never ran in a forward pass: {', '.join(missing)}; choose layers it calls")
        # Nothing that learns lies below the module that is the first with parameters to run.
        chosen = [name for name in (list(ran)[1:] if self.auto else ran) if name in self.points]
        if not chosen:
            raise PointsError(
                f"found no layer to send the error back through: {len(ran)} modules with parameters ran, and of those "
                "after the first none is of a known linear layer's class; give points=, or register the classes of "
                "your layers with feedalign.register_linear_layer"
            )
        for name in chosen:
            if (refusal := ran[name]) is not None:
                raise refusal
            if self.real_weights and any(one.is_complex() for one in self.hooked[name].parameters(recurse=False)):
                raise PointsError(
                    f"the weight of {name!r} is complex, and {type(self).__name__} has real feedback that depends on "
                    f"the weights; give points= without {name!r}, and the error passes it as in backprop, or take FA"
                )
        return chosen

    def draw(self, found: Any) -> None:
        """Draw the matrix of every layer; the Jacobian of a layer is its own weight."""
        chosen: list[str] = found
        modules = {name: self.model.get_submodule(name) for name in chosen}
        self.known = {name: known for name, layer in modules.items() if (known := known_layer(layer)) is not None}
        matrices = {n: known.as_matrix(known.weight_now(modules[n])) for n, known in self.known.items()}
        widest = max(len(matrix) for matrix in matrices.values())
        places = [
            Place(name, len(matrix), matrix.shape[1], (len(matrix),), widest, self.feedback.seed, matrix.T)
            for name, matrix in matrices.items()
        ]
        self.feedback.draw(places, self.model)
        self.places, self.points, self.drawn = places, tuple(chosen), True

    def _layers_that_run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, PointsError | None]:
        """Return the layers and all modules with parameters that a forward pass runs, and why each cannot be replaced.

        They are in the order in which they have run for the first time.
        """
        ran: dict[str, PointsError | None] = {}

        def see(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if name not in ran:
                ran[name] = refusal_of(name, layer, inputs, output) if name in self.points else None

        seen = {name: module for name, module in self.model.named_modules() if _has_parameters(name, module)}
        seen |= self.hooked
        with ExitStack() as handles, evaluating(self.model):
            for name, module in seen.items():
                handles.enter_context(module.register_forward_hook(partial(see, name)))
            self.model(*args, **kwargs)
        return ran

    def _candidates(self) -> tuple[str, ...]:
        return tuple(name for name, module in self.model.named_modules() if known_layer(module) is not None)

    def _checked(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if refused := [name for name in names if known_layer(self.model.get_submodule(name)) is None]:
            found = ", ".join(map(repr, self._candidates())) or "(no module of this model is one)"
            refusal = unknown(refused[0], self.model.get_submodule(refused[0]))
            raise PointsError(f"{refusal}. The layers of this model that are known: {found}")
        return names


def _has_parameters(name: str, module: nn.Module) -> bool:
    """Return whether a module holds parameters itself, and is no part of the parametrization of another module."""
    return ".parametrizations." not in f".{name}." and any(True for _ in module.parameters(recurse=False))
