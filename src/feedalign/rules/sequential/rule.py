"""Rules that send the error down layer by layer, through other weights than the layers' own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import Entry, ErrorTap, check_points, evaluating, tensors_in, weight_matrices
from feedalign.errors import ArgumentError, PointsError
from feedalign.feedback import Feedback, Place
from feedalign.rules.distributed import sharded_modules
from feedalign.rules.sequential import layers
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
        points: dotted names of the *layers* whose transposed weight is replaced: `Linear`, convolutions (any stride,
            padding, dilation, groups), and any other module that takes and returns one Tensor and is linear in its one
            weight; those run a second time with B. "auto" takes every module with a weight matrix, except the first to
            run, whose input carries no error, and modules whose input is an index.
        feedback: recipe of B_l; Gaussian of standard deviation 1/√fan-in unless given.
        seed: seed of the feedback, which has a generator of its own.
        example_input: one input of the model (a tuple for several); then the matrices are there before the first pass.
        output: see `DirectRule`; used by the tools that look at the error at the output.
        batch_dims: see `DirectRule`; used by the tools that look at the error at the output.

    Attributes:
        points: names of the layers, in the order in which they run once that is known.
        weight_names: by layer, the name of the parameter that is replaced; empty until the matrices are drawn.

    Raises:
        PointsError: a layer is unknown, repeated or never runs, holds no weight matrix or several, or is not linear in
            its weight. In a learning pass: a layer runs without gradients, or its module has been replaced.
        ArgumentError: `feedback` is no recipe, or `batch_dims` is no number of axes.
    """

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        output: Entry = None,
        batch_dims: int | None = None,
    ) -> None:
        super().__init__(model, feedback, seed, ErrorTap(output, batch_dims))
        self.auto = isinstance(points, str) and points == "auto"
        self.points = self._candidates() if self.auto else self._checked(check_points(model, points))
        self.weight_names: dict[str, str] = {}
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
            layer = self.model.get_submodule(name)
            weight = layers.weight_of(layer)
            pairs[name] = weight, self.backward_weight(layers.as_weight(layer, matrix, weight), weight)
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
        self.account_for(passing.names, output)
        if self.error_tap.entry is not None:
            self.error_tap.of(output)
        if not torch.compiler.is_compiling():
            # Activation checkpointing may repeat parts of the forward pass, under a pass like this one.
            repeat = LayerByLayer(self)
            for tensor in tensors_in(output):
                if tensor.grad_fn is not None:
                    tensor.grad_fn.register_prehook(lambda *_: self.slot.enter_backward(repeat))
        return output

    def begin(self) -> None:
        """Before the first learning pass, refuse layers that would have to run again and are sharded by themselves."""
        super().begin()
        for layer in sharded_modules(self.model):
            names = [name for name in self.points if self.hooked[name] is layer and not layers.has_formula(layer)]
            if names:
                self.begun = False
                raise ArgumentError(
                    f"fully_shard was given the layer {names[0]!r}, a {layers.kind_of(layer).__name__}, which must run "
                    "a second time with the feedback as its weight; shard a module around the layer"
                )

    @torch.no_grad()
    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        """Return the layers to replace, in the order in which they run, checked to be such as can be replaced."""
        ran = self._layers_that_run(args, kwargs)
        if missing := [name for name in self.points if name not in ran and not self.auto]:
            raise PointsError(f"points that never ran in a forward pass: {', '.join(missing)}; choose layers it calls")
        chosen = [name for name in ran if name in self.points]
        if self.auto:
            chosen = [name for name in list(ran)[1:] if not _is_lookup(ran[name][1])]
        if not chosen:
            raise PointsError(
                f"found no layer to send the error back through: {len(ran)} modules with a weight matrix ran, and the "
                "first has nothing below it"
            )
        for name in chosen:
            layers.check_linear(name, *ran[name])
        return chosen

    def draw(self, found: Any) -> None:
        """Draw the matrix of every layer; the Jacobian of a layer is its own weight."""
        chosen: list[str] = found
        modules = {name: self.model.get_submodule(name) for name in chosen}
        self.weight_names = {name: layers.weight_name(layer) for name, layer in modules.items()}
        weights = {name: layers.weight_of(layer) for name, layer in modules.items()}
        sizes = {name: layers.matrix_sizes(modules[name], weight) for name, weight in weights.items()}
        places = []
        for name, (fan_in, outputs) in sizes.items():
            jacobian = layers.as_matrix(modules[name], weights[name]).T
            widest = max(fan_in for fan_in, _ in sizes.values())
            places.append(Place(name, fan_in, outputs, (fan_in,), widest, self.feedback.seed, jacobian))
        self.feedback.draw(places, self.model)
        self.places, self.points, self.drawn = places, tuple(chosen), True

    def _layers_that_run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, tuple[nn.Module, tuple[Any, ...], Any]]:
        """Return the layers with a weight matrix that a forward pass runs: each with its first inputs and output."""
        ran: dict[str, tuple[nn.Module, tuple[Any, ...], Any]] = {}

        def see(name: str, *run: Any) -> None:
            ran.setdefault(name, run)

        weighted = {name: layer for name, layer in self.model.named_modules() if weight_matrices(layer)}
        handles = [layer.register_forward_hook(partial(see, name)) for name, layer in weighted.items()]
        try:
            with evaluating(self.model):
                self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return ran

    def _candidates(self) -> tuple[str, ...]:
        return tuple(name for name, module in self.model.named_modules() if weight_matrices(module))

    def _checked(self, names: tuple[str, ...]) -> tuple[str, ...]:
        candidates = self._candidates()
        if without := [name for name in names if name not in candidates]:
            raise PointsError(
                f"points of {type(self).__name__} are layers, whose transposed weights it replaces; "
                f"{', '.join(map(repr, without))} hold no weight matrix, choose from: "
                f"{', '.join(map(repr, candidates))}"
            )
        return names


def _is_lookup(inputs: tuple[Any, ...]) -> bool:
    """Return whether a layer's input is an index, which no error passes."""
    return any(isinstance(x, Tensor) and not x.is_floating_point() for x in inputs)
