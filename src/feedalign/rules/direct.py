r"""Rules that send the error from the output straight to every hidden layer: DFA and what differs in the message.

The rule is backprop on a rewired graph. At each feedback point the activation is detached on its way up; one autograd
function, the identity on the output, takes the activations as further inputs and in its backward pass hands each the
message through its own matrix. Blocks are then separate graphs, and the products with transposed forward weights are
never computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from feedalign.errors import ArgumentError
from feedalign.feedback import Feedback
from feedalign.rules.base import Rule, Taps, check_feedback, refuse_unreached
from feedalign.rules.processes import averaged
from feedalign.rules.recompute import recomputed
from feedalign.rules.signal import direct_signal, direct_signals

# Numbers sent in one backward pass, from which on each signal is made when its block comes. In smaller networks all of
# them together take no more than 16 MB, and one at a time they would take a step of width 1024 1.5 % longer.
LARGE = 2**22

# The rule; its matrices; shapes of activations and output, unless signals come in them; what makes signals later. In
# one, since every argument of an autograd function takes its time.
_Sending = tuple["DirectRule", Sequence[Tensor], Sequence[torch.Size] | None, "_Later | None"]


class _Send(torch.autograd.Function):
    """Identity on the output; backward, the error to the output and the message through F_l to each activation."""

    @staticmethod
    def forward(ctx: Any, sending: _Sending, output: Tensor, *hidden: Tensor) -> Tensor:
        ctx.sending = sending
        if sending[0].learns_feedback:
            ctx.save_for_backward(*hidden)
        # No view of it, so that what follows may work on it in place.
        return output.detach()

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        rule, matrices, shapes, later = ctx.sending
        rule._pass.enter_backward()
        message = rule.message(error)
        if rule.gathers:
            rule.gather(error)
        if later is not None:
            return None, error, *later.leave(message)
        # To the activation's own precision autograd casts the signal.
        signals = direct_signals(message, matrices)
        if shapes is not None:
            signals = [signal.reshape(shape) for signal, shape in zip(signals, shapes, strict=False)]
        if rule.learns_feedback:
            for matrix, hidden in zip(matrices, ctx.saved_tensors, strict=True):
                rule.learn(matrix, hidden.reshape(*error.shape[:-1], -1), error)
                matrix.copy_(averaged(matrix, rule._pass.group))
        return None, error, *signals


# `Function.apply` without what it does for `torch.func`, a third of its time.
_send = super(torch.autograd.Function, _Send).apply


class _Later:
    """Makes each signal of one pass when the backward pass comes to its block, so that there is one at a time.

    Autograd runs what was computed last first: once it has begun with a block, it ends it before the next.
    """

    def __init__(self, matrices: Sequence[Tensor], hidden: Sequence[Tensor]) -> None:
        self.nothing = [activation.new_zeros(()).expand(activation.shape) for activation in hidden]
        self.backward = -1
        for matrix, activation in zip(matrices, hidden, strict=True):
            if activation.requires_grad:
                activation.register_hook(partial(self.arrive, matrix))

    def leave(self, message: Tensor) -> list[Tensor]:
        """Keep the message, and return what goes to the activations in place of their signals: zeros in no memory."""
        self.message, self.backward = message, torch._C._current_graph_task_id()
        return self.nothing

    def arrive(self, matrix: Tensor, gradient: Tensor) -> Tensor:
        """Hook of an activation: return its signal, and what else has come there."""
        if self.backward != torch._C._current_graph_task_id():  # a backward pass of something else
            return gradient
        signal = direct_signal(self.message, matrix).reshape(gradient.shape).to(gradient.dtype)
        return signal if not any(gradient.stride()) else signal + gradient


class DirectRule(Rule):
    """A rule that sends every hidden layer one message, through the layer's own matrix, while the readout keeps e.

    A subclass says what the message is, `message`; where that depends on errors before, what it takes from them,
    `gather`; where it learns its feedback, also how, `learn`.

    Args:
        model: see `Rule`, as for points, feedback, seed and example_input.
        points: see `Rule`.
        feedback: see `Rule`.
        seed: see `Rule`.
        recompute: keep nothing of the forward pass, and run the model a second time in the backward pass, where each
            block learns and is freed at once. A step then holds the graph of one block, however many there are. The
            output must be a Tensor. In a compiled model this has no effect: the compiler decides what is kept.
        **options: `example_input`, `output` and `batch_dims`, see `Rule`.

    Raises:
        ArgumentError: `recompute` with an `output`.
    """

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        recompute: bool = False,
        **options: Any,
    ) -> None:
        if recompute and options.get("output") is not None:
            raise ArgumentError(
                f"recompute=True with output={options['output']!r}: the second run gives the error's Tensor alone; "
                "wrap a model that returns it, or checkpoint its blocks (torch.utils.checkpoint)"
            )
        super().__init__(model, points, feedback, seed, **options)
        self.recompute = recompute

    def message(self, error: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return what is sent through every F_l: here e = ∂loss/∂output itself, with the loss's reduction factor."""
        return error

    def gather(self, error: Float[Tensor, "*batch outputs"]) -> None:
        """Keep what later messages take from the errors; called if `gathers`, once a backward pass, after its message.

        Gradients are off in here. Under `DistributedDataParallel` the errors are those of this process.
        """

    def learn(
        self,
        matrix: Float[Tensor, "features outputs"],
        hidden: Float[Tensor, "*batch features"],
        error: Float[Tensor, "*batch outputs"],
    ) -> None:
        """Change F_l in place once the backward pass has sent the message; called if `learns_feedback`.

        Gradients are off in here, and the activations are those of this forward pass. Under
        `DistributedDataParallel` they are those of this process, and F_l becomes the mean over the processes.
        """

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.recompute and not torch.compiler.is_compiling():
            return recomputed(self, args, kwargs)
        return super()._run(args, kwargs)

    def connect(self, output: Tensor, taps: Taps) -> Tensor:
        """Tie the output to every hidden activation through its feedback matrix."""
        if not taps:
            refuse_unreached()
        # A small network's step is so short that each lookup and check made anew would show in it.
        of_pass, compiling = self._pass, torch.compiler.is_compiling()
        held: Any = self._modules["feedback"]
        matrices, hidden, shapes = held.beside(taps)
        shapes.append(output.shape)
        if shapes == of_pass.shapes:
            alike, large = of_pass.alike, of_pass.large
        else:
            check_feedback([name for name, _ in taps], matrices, shapes)
            alike = len(set(map(len, shapes))) == 1
            large = sum(shape.numel() for shape in shapes[:-1]) >= LARGE
            if not compiling:
                of_pass.shapes, of_pass.alike, of_pass.large = shapes, alike, large
        # A compiler orders the operations itself; feedback that learns must not before everything is sent.
        in_turn = large and not (self.learns_feedback or compiling)
        # Where the axes are as many, signals come in the activations' shapes.
        sending = self, matrices, None if alike else shapes, _Later(matrices, hidden) if in_turn else None
        send = _Send.apply if compiling or torch._C._are_functorch_transforms_active() else _send
        tied: Tensor = send(sending, output, *hidden)  # type: ignore[no-untyped-call]
        return tied
