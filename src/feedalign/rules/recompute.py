"""Direct rules that keep no graph: the backward pass runs the model again, and frees each block once it has learned.

A block learns from the error at the output and from nothing in the blocks above it. So a first forward pass need keep
nothing at all; in a second one, which begins with the error known, each block's graph ends at its point, learns there
and is freed. Backprop cannot do that: its last block must learn first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from feedalign.rules.base import check_feedback
from feedalign.rules.outputs import tensors_in
from feedalign.rules.processes import averaged
from feedalign.rules.signal import direct_signal

if TYPE_CHECKING:
    from feedalign.rules.direct import DirectRule


def recomputed(rule: DirectRule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Run the rule's model without a graph, and return an output whose backward pass runs it again.

    The second run has the random numbers and the precision of the first, and leaves the model's buffers, such as batch
    statistics, as the first did.
    """
    given = [tensor for tensor in tensors_in((args, kwargs)) if tensor.requires_grad]
    wanted = [parameter for parameter in rule.model.parameters() if parameter.requires_grad] + given
    output: Tensor = _Recompute.apply(rule, args, kwargs, *wanted)  # type: ignore[no-untyped-call]
    return output


class _Recompute(torch.autograd.Function):
    """From parameters, and inputs that learn, to the output; backward, the rule's gradients of all of them."""

    @staticmethod
    def forward(ctx: Any, rule: DirectRule, args: tuple[Any, ...], kwargs: dict[str, Any], *wanted: Tensor) -> Tensor:
        ctx.rule, ctx.args, ctx.kwargs, ctx.wanted = rule, args, kwargs, wanted
        ctx.circumstances = _Circumstances(rule.model)
        before = [(buffer, buffer._version, buffer.clone()) for buffer in rule.model.buffers()]
        with ctx.circumstances.precision():
            tapped = rule.error_tap.of(rule.model(*args, **kwargs))
        ctx.before = [(buffer, value) for buffer, version, value in before if buffer._version != version]
        return tapped

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        rule = ctx.rule
        rows = rule.error_tap.rows(error)
        blocks = _BlockByBlock(rule, ctx.wanted, rows)
        buffers = list(rule.model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        for buffer, value in ctx.before:  # what a layer makes of its weight may start from them
            buffer.copy_(value)
        with ctx.circumstances.again(), torch.enable_grad():
            rule._pass.taps = blocks
            try:
                tapped = rule.error_tap.of(rule.model(*ctx.args, **ctx.kwargs))
            finally:
                rule._pass.taps = None
            blocks.learn(tapped, error)
        for buffer, value in zip(buffers, kept, strict=True):
            if not torch.equal(buffer, value):  # written to without need, it would be of no use to any other graph
                buffer.copy_(value)
        return None, None, None, *blocks.gradients


class _BlockByBlock(list[tuple[str, Tensor]]):
    """What the points' hooks append an activation to: the block that it ends learns at once, and nothing is kept."""

    def __init__(self, rule: DirectRule, wanted: tuple[Tensor, ...], error: Tensor) -> None:
        super().__init__()
        self.rule, self.wanted, self.error = rule, wanted, error
        self.message = rule.message(error)
        if rule.gathers:
            rule.gather(error)
        self.gradients: list[Tensor | None] = [None] * len(wanted)
        # What is learned in a backward pass changes nothing of that pass, also if a module runs twice.
        matrices = rule.feedback_matrices
        self.sending = {name: F.clone() for name, F in matrices.items()} if rule.learns_feedback else matrices
        self.circumstances = _Circumstances(rule.model)

    def append(self, tap: tuple[str, Tensor]) -> None:
        name, activation = tap
        check_feedback((name,), (self.sending[name],), (activation.shape, self.error.shape))
        with self._of_backward_pass():
            signal = direct_signal(self.message, self.sending[name]).reshape(activation.shape).to(activation.dtype)
            self.learn(activation, signal)
            if self.rule.learns_feedback:
                matrix = self.rule.feedback_matrices[name]
                self.rule.learn(matrix, activation.reshape(*self.error.shape[:-1], -1), self.error)
                matrix.copy_(averaged(matrix, self.rule._pass.group))

    def learn(self, end: Tensor, sent: Tensor) -> None:
        """Add the gradients of the block that ends here, from what is sent to its end."""
        if not end.requires_grad:
            return
        with self._of_backward_pass():
            # Where a skip connection passes the point, a later block needs this graph too. Else nothing holds it once
            # the activation has been detached, and it is freed.
            found = torch.autograd.grad(end, self.wanted, sent, retain_graph=True, allow_unused=True)
            for i, gradient in enumerate(found):
                if gradient is not None:
                    known = self.gradients[i]
                    self.gradients[i] = gradient if known is None else known + gradient

    @contextmanager
    def _of_backward_pass(self) -> Iterator[None]:
        """Leave the forward pass that runs again for the backward pass around it."""
        # Activation checkpointing may run a point a third time from here, which tells nothing new.
        taps, self.rule._pass.taps = self.rule._pass.taps, None
        try:
            with torch.no_grad(), self.circumstances.precision():
                yield
        finally:
            self.rule._pass.taps = taps


class _Circumstances:
    """The random state and the autocast in which a forward pass began."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
        self.random = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in self.devices]
        self.device = next(model.parameters()).device.type
        self.enabled = torch.is_autocast_enabled(self.device)
        self.dtype = torch.get_autocast_dtype(self.device)

    def precision(self) -> torch.autocast:
        """Return the autocast. What it casts while no graph is recorded must not be used where one is: no cache."""
        return torch.autocast(self.device, self.dtype, self.enabled, cache_enabled=False)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Return to these circumstances for a while."""
        with torch.random.fork_rng(self.devices), self.precision():
            torch.set_rng_state(self.random[0])
            for device, state in zip(self.devices, self.random[1], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
