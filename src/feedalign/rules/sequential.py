r"""Feedback alignment: the error goes down layer by layer, through other weights than it came up by.

The rule is backprop on a rewired graph. Each weighted layer gets its input detached, so autograd's own backward gives
the true gradient of its weight and bias from the error that arrives at its output; one autograd function, the
identity on that output, takes the layer's input as a further input and hands it the error through B instead of
Wᵀ. There is nothing re-entrant and no backward hook.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from feedalign.errors import FeedbackShapeError, PointsError
from feedalign.feedback import Place, draw_at, needs_jacobian
from feedalign.rules import layers
from feedalign.rules.base import Rule, check_recording
from feedalign.rules.points import check_points, weight_matrices
from feedalign.rules.processes import averaged


class _SendBack(torch.autograd.Function):
    """Identity on a layer's output; backward, the error through another weight to the layer's input."""

    @staticmethod
    def forward(
        ctx: Any, rule: SequentialRule, name: str, layer: nn.Module, weight: Tensor, y: Tensor, x: Tensor
    ) -> Tensor:
        ctx.rule, ctx.name, ctx.layer, ctx.weight = rule, name, layer, weight
        ctx.shape, ctx.dtype = x.shape, x.dtype
        if rule.learns_feedback:
            ctx.save_for_backward(x)
        # The layer's own output, not a view of it: activations that work in place may follow.
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, sent: Tensor) -> tuple[Tensor | None, ...]:
        below = layers.input_gradient(ctx.layer, ctx.shape, ctx.weight.to(sent.dtype), sent).to(ctx.dtype)
        if ctx.rule.learns_feedback:
            (x,) = ctx.saved_tensors
            ctx.rule._learn(ctx.name, ctx.layer, layers.weight_gradient(ctx.layer, x, sent))
        return None, None, None, None, sent, below


class _Learn(torch.autograd.Function):
    """Stand-in for a backward weight whose gradient is the forward weight's: it goes to the rule, no further."""

    @staticmethod
    def forward(ctx: Any, rule: SequentialRule, name: str, layer: nn.Module, weight: Tensor) -> Tensor:
        ctx.rule, ctx.name, ctx.layer = rule, name, layer
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx.rule._learn(ctx.name, ctx.layer, gradient)
        return None, None, None, None


class SequentialRule(Rule):
    r"""A rule that passes the error down layer by layer, with other weights in place of the transposed ones.

    .. math:: δ_{l-1} = (B_l δ_l) ⊙ g'(a_{l-1}) \quad\text{instead of}\quad (W_l^T δ_l) ⊙ g'(a_{l-1})

    Parameters' own gradients are the true ones given δ_l. Whatever holds no weight matrix passes the error on as in
    backprop: activations, normalisation, pooling, attention between layers.

    Here `points` are the *layers* whose transposed weight is replaced: `Linear`, convolutions (any stride, padding,
    dilation, groups), and any other module that takes and returns one Tensor, linear in its one weight; for those the
    layer runs a second time with B. "auto" takes every module with a weight matrix but the first to run, whose input
    carries no error, and those whose input is not a number but an index. For other arguments see `Rule`.

    `feedback_matrices` has B_l [fan-in, outputs] by layer, fan-in being inputs × kernel for a convolution; a
    recipe's default scale 1/√features is 1/√fan-in. Copies of a layer, weights [..., out, in], share one B_l.

    Raises:
        PointsError: also if a point holds no weight matrix, or several, or is not linear in it.
    """

    _probes: ClassVar[bool] = False

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
            weight = layer.get_parameter(layers.weight_name(layer)).detach()
            pairs[name] = weight, self.backward_weight(layers.as_weight(layer, matrix, weight), weight)
        return pairs

    def learn(self, matrix: Tensor, gradient: Tensor) -> None:
        """Change B_l in place, called if `learns_feedback`, each time the error has gone through it.

        Args:
            matrix: B_l, [fan-in, outputs].
            gradient: of the loss with respect to W_l, transposed to that shape, as the rule has it. Under
                `DistributedDataParallel` it is that of this process, and B_l becomes the mean over the processes.
        """

    def _learn(self, name: str, layer: nn.Module, gradient: Tensor) -> None:
        matrix = self.feedback.of((name,))[0]
        with torch.no_grad():
            self.learn(matrix, layers.as_matrix(layer, gradient).to(matrix.dtype))
            matrix.copy_(averaged(matrix, self._pass.group))

    def _choose(self, model: nn.Module, points: str | Iterable[str]) -> tuple[str, ...]:
        self._auto = points == "auto"
        self._weight_names: dict[str, str] = {}
        self._inputs: dict[str, Tensor] = {}  # of the layers that are running
        modules = dict(model.named_modules())
        if self._auto:
            return tuple(name for name, module in modules.items() if weight_matrices(module))
        names = check_points(model, points)
        without = [name for name in names if not weight_matrices(modules[name])]
        if without:
            raise PointsError(
                f"points of {type(self).__name__} are layers, whose transposed weights it replaces; "
                f"{', '.join(map(repr, without))} hold no weight matrix, choose from: "
                f"{', '.join(repr(name) for name, module in modules.items() if weight_matrices(module))}"
            )
        return names

    def _attach(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        return [
            module.register_forward_pre_hook(partial(self._cut, name)),
            module.register_forward_hook(partial(self._tie, name)),
        ]

    def _cut(self, name: str, _layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if (self._pass.taps is None and not self._pass.repeats) or name not in self._weight_names:
            return None
        check_recording(name)
        if not inputs[0].requires_grad:
            return None
        self._inputs[name] = inputs[0]
        return inputs[0].detach(), *inputs[1:]

    def _tie(self, name: str, layer: nn.Module, _inputs: tuple[Any, ...], y: Tensor) -> Tensor | None:
        x = self._inputs.pop(name, None)
        if x is None:
            return None
        weight = layer.get_parameter(self._weight_names[name]).detach()
        instead = self.backward_weight(layers.as_weight(layer, self.feedback.of((name,))[0], weight), weight)
        if self.learns_feedback:
            # What is learned in a backward pass changes nothing of that pass, also if the layer ran twice.
            instead = instead.clone()
        if layers.has_formula(layer):
            tied: Tensor = _SendBack.apply(self, name, layer, instead, y, x)  # type: ignore[no-untyped-call]
            return tied
        if self.learns_feedback:
            instead = _Learn.apply(self, name, layer, instead.requires_grad_())  # type: ignore[no-untyped-call]
        taps, self._pass.taps = self._pass.taps, None  # the layer runs again, as it is
        try:
            through = layers.with_weight(layer, instead, x)
        finally:
            self._pass.taps = taps
        # Adds nothing to y but the graph through B: a difference of equal numbers is exactly zero.
        return y + (through - through.detach()).to(y.dtype)

    @torch.no_grad()
    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        """Return the layers to replace, in the order they run, checked to be such as can be."""
        ran: dict[str, tuple[nn.Module, tuple[Any, ...], Any]] = {}
        modules = dict(self.model.named_modules())
        weighted = [name for name, module in modules.items() if weight_matrices(module)]

        def see(name: str, *run: Any) -> None:
            ran.setdefault(name, run)

        training = {module: module.training for module in modules.values()}
        self.model.eval()
        handles = [modules[name].register_forward_hook(partial(see, name)) for name in weighted]
        try:
            self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
            for module, mode in training.items():
                module.training = mode
        if missing := [name for name in self.points if name not in ran and not self._auto]:
            raise PointsError(f"points that never ran in a forward pass: {', '.join(missing)}; choose layers it calls")
        chosen = [name for name in ran if name in self.points]
        if self._auto:
            chosen = [name for name in list(ran)[1:] if not _is_lookup(ran[name][1])]
        if not chosen:
            raise PointsError(
                f"found no layer to send the error back through: {len(ran)} modules with a weight matrix ran, and the "
                "first has nothing below it"
            )
        for name in chosen:
            layers.check_linear(name, *ran[name])
        return chosen

    def _draw(self, found: Any, jacobians: dict[str, Tensor]) -> None:
        """Draw the matrix of every layer that has none yet; a layer's Jacobian is its own weight."""
        chosen: list[str] = found
        modules = dict(self.model.named_modules())
        self._weight_names = {name: layers.weight_name(modules[name]) for name in chosen}
        weights = {name: modules[name].get_parameter(held).detach() for name, held in self._weight_names.items()}
        sizes = {name: layers.matrix_sizes(modules[name], weight) for name, weight in weights.items()}
        widest = max(fan_in for fan_in, _ in sizes.values())
        generator = torch.Generator().manual_seed(self.seed)
        if needs_jacobian(self.recipe):
            jacobians = {name: layers.as_matrix(modules[name], weight).T for name, weight in weights.items()}
        self._places = [
            Place(name, fan_in, outputs, (fan_in,), widest, self.seed, jacobians.get(name))
            for name, (fan_in, outputs) in sizes.items()
        ]
        for place in self._places:
            name, fan_in, outputs = place.name, place.features, place.outputs
            known = self.feedback.matrices.get(name)
            if known is None:
                self.feedback.put(name, self._like_model(self._drawn_at(place, generator)))
            elif known.shape != (fan_in, outputs):
                raise FeedbackShapeError(
                    f"the feedback of layer {name!r} has shape {tuple(known.shape)}, but its weight as a matrix is "
                    f"{(fan_in, outputs)}, fan-in by outputs; after a change of the network's shape wrap it again"
                )
        self.points = tuple(chosen)
        self._pass.drawn = True

    def _drawn_at(self, place: Place, generator: torch.Generator) -> Tensor:
        return draw_at(self.recipe, place, generator)


def _is_lookup(inputs: tuple[Any, ...]) -> bool:
    """Whether a layer's input is an index, which no error passes."""
    return any(isinstance(x, Tensor) and not x.is_floating_point() for x in inputs)


class FA(SequentialRule):
    r"""Feedback alignment: B_l random and fixed in place of the transposed weight of every layer but the first.

    .. math:: δ_{l-1} = (B_l δ_l) ⊙ g'(a_{l-1})

    Convolutions and copies are described at `SequentialRule`, the arguments there and at `Rule`.

    Source: Lillicrap, Cownden, Tweed and Akerman (2016).
    """
