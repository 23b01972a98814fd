r"""How the error passes a layer: through another weight than the layer's own.

FA is backprop on a rewired graph. Each weighted layer gets its input detached, so autograd's own backward pass
gives the true gradient of its weight and bias from the error that arrives at its output. One autograd function, the
identity on that output, takes the layer's input as a further input, and hands it the error through B instead of Wᵀ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from feedalign.rules.accounting import check_recording
from feedalign.rules.distributed import Processes
from feedalign.rules.learning import keep
from feedalign.rules.once import differentiated_once, once
from feedalign.rules.sequential.linear_layer import Gradients
from feedalign.rules.slot import Hooks

if TYPE_CHECKING:
    from feedalign.rules.sequential.rule import SequentialRule

Learn = Callable[[Tensor], None]  # of the gradient of the layer's weight, in its shape


class _SendBack(torch.autograd.Function):
    """The identity on a layer's output; in the backward pass, the error through another weight to the layer's input."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, layer: nn.Module, gradients: Gradients, weight: Tensor, learn: Learn | None
    ) -> Tensor:
        ctx.layer, ctx.gradients, ctx.weight, ctx.learn = layer, gradients, weight, learn
        ctx.shape, ctx.dtype = x.shape, x.dtype
        if learn is not None:
            ctx.save_for_backward(x)
        # No view of the output, so that activations that work in place may follow. And not the output itself, marked as
        # changed: where torch compiles this hook by itself, the compiled code leaves such a function out.
        return y.detach()

    @staticmethod
    def backward(ctx: Any, sent: Tensor) -> tuple[Tensor | None, ...]:
        below = ctx.gradients.of_input(ctx.layer, ctx.shape, ctx.weight.to(sent.dtype), sent).to(ctx.dtype)
        if ctx.learn is not None:
            (x,) = ctx.saved_tensors
            ctx.learn(ctx.gradients.of_weight(ctx.layer, x.to(sent.dtype), ctx.weight.shape, sent))
        return sent, *once(sent, (below,)), None, None, None, None


class _Overhear(torch.autograd.Function):
    """The identity on a backward weight; in the backward pass its gradient, that of the forward weight, is learned."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, learn: Learn) -> Tensor:
        ctx.learn = learn
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx.learn(gradient)
        return None, None


class LayerByLayer:
    """A forward pass in which every layer's input is detached, and tied to the layer's output through another weight.

    Attributes:
        names: of the layers that have run.
    """

    def __init__(self, rule: SequentialRule) -> None:
        self.rule = rule
        self.processes = Processes.of_this_pass(rule.shards) if rule.learns_feedback else Processes()
        self.names: list[str] = []
        self.inputs: dict[str, Tensor] = {}  # of the layers that are running

    def entering(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Detach the input of a layer that begins to run."""
        if name not in self.rule.known:
            return None
        self.names.append(name)
        x = inputs[0]
        if not torch.is_grad_enabled() and not x.requires_grad and not any(p.requires_grad for p in layer.parameters()):
            return None  # a frozen part of the model, such as a backbone, in which nothing learns
        check_recording(name)
        if not x.requires_grad:
            if not self.rule.learns_feedback:
                return None
            x = x.detach().requires_grad_()  # no error goes further, but B learns as the weight does
        self.inputs[name] = x
        return x.detach(), *inputs[1:]

    def leaving(self, name: str, layer: nn.Module, y: Tensor) -> Tensor | None:
        """Return the output of a layer, tied to the layer's input through the other weight."""
        x = self.inputs.pop(name, None)
        if x is None:
            return None
        rule, known = self.rule, self.rule.known[name]
        held = known.weight_of(layer)
        weight = held.detach()
        instead = rule.backward_weight(known.as_weight(rule.feedback[name], weight.shape), weight)
        learn = None
        counts = y.numel() or self.processes.group is not None  # an empty batch of a process alone is no update
        if rule.learns_feedback and held.requires_grad and counts:  # B does not move where W stays
            instead = instead.clone()  # what is learned in a backward pass changes nothing of that pass
            learn = partial(learn_layer, rule, name, layer, self.processes)
        if (gradients := known.gradients_of(layer)) is not None:
            tied: Tensor = _SendBack.apply(y, x, layer, gradients, instead, learn)  # type: ignore[no-untyped-call]
            return tied
        if learn is not None:
            instead = _Overhear.apply(instead.requires_grad_(), learn)  # type: ignore[no-untyped-call]
        through = differentiated_once(known.formula(layer, x, instead, None))
        # Adds nothing to y but the graph through B: the difference of equal numbers is exactly zero.
        return y + (through - through.detach()).to(y.dtype)


@torch.no_grad()
def learn_layer(rule: SequentialRule, name: str, layer: nn.Module, processes: Processes, gradient: Tensor) -> None:
    """Let a rule change the matrix of one layer, from the gradient of the layer's weight."""
    matrix = rule.feedback[name]
    changed = matrix.clone()
    known = rule.known[name]
    rule.learn(changed, known.as_matrix(known.where_it_moves(layer, gradient)).to(matrix.dtype))
    keep(processes.averaged(changed), matrix)


class LayerHooks(Hooks):
    """The two hooks of one layer, before and after the layer runs."""

    def before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Hook before the layer's forward."""
        running = self.slot.now
        return running.entering(self.name, layer, inputs) if isinstance(running, LayerByLayer) else None

    def after(self, layer: nn.Module, _inputs: tuple[Any, ...], y: Tensor) -> Tensor | None:
        """Hook after the layer's forward."""
        running = self.slot.now
        return running.leaving(self.name, layer, y) if isinstance(running, LayerByLayer) else None
