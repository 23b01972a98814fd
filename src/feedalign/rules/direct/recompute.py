"""Direct rules that keep no graph: the backward pass runs the model again, and frees each block once it has learned.

A block learns from the error at the output and from nothing in the blocks above it. So a first forward pass need not
keep anything. In a second one, which begins with the error known, each block's graph ends at its point, learns there
and is freed. Backprop cannot do that: its last block must learn first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import State, activation_of, detached, same_modes, same_state, tensors_in
from feedalign.errors import PointsError
from feedalign.rules.accounting import account_for
from feedalign.rules.direct.cut import Uncoupled
from feedalign.rules.direct.hooks import CuttingPass
from feedalign.rules.direct.one_pass import check_block, check_readout
from feedalign.rules.direct.sender import Sender, check_shapes
from feedalign.rules.once import once
from feedalign.torch_private import has_own_backward_hooks

if TYPE_CHECKING:
    from feedalign.rules.direct.rule import DirectRule


def recomputed(rule: DirectRule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Run the rule's model without a graph, and return an output whose backward pass runs the model again.

    The second run has the random numbers and the precision of the first. It leaves the model's buffers, such as batch
    statistics, as the first run did.
    """
    twice = TwoRuns(rule, args, kwargs)
    output: Tensor = _Recompute.apply(twice.first, twice.second, *twice.wanted, *twice.others)  # type: ignore[no-untyped-call]
    return output


class _Recompute(torch.autograd.Function):
    """From parameters and inputs to the output; in the backward pass, the rule's gradients of those that learn."""

    @staticmethod
    def forward(ctx: Any, first: Any, second: Any, *tensors: Tensor) -> Tensor:
        ctx.second = second
        # Saved only so that autograd refuses the backward pass if one of them has been changed in place by then.
        ctx.save_for_backward(*tensors)
        output: Tensor = first()
        return output

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradients = ctx.second(error)
        found = iter(once(error, [gradient for gradient in gradients if gradient is not None]))
        given = [None if gradient is None else next(found) for gradient in gradients]
        return None, None, *given, *[None] * (len(ctx.saved_tensors) - len(given))


class TwoRuns:
    """The two runs of one learning pass.

    Attributes:
        wanted: Tensors whose gradients are wanted: the parameters and inputs that learn.
        others: the other inputs.
    """

    def __init__(self, rule: DirectRule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.rule, self.args, self.kwargs = rule, args, kwargs
        self.sender = Sender(rule, masks=rule.masks_of(args, kwargs))
        self.surroundings, self.precision = Surroundings(rule.model), Precision(rule.model)
        given = tensors_in((args, kwargs))
        learning = [parameter for parameter in rule.model.parameters() if parameter.requires_grad]
        self.wanted = [*learning, *(tensor for tensor in given if tensor.requires_grad)]
        self.others = [tensor for tensor in given if not tensor.requires_grad]

    def first(self) -> Tensor:
        """Run the model without a graph and return where the error is taken."""
        uncoupled = FirstRun()
        with self.precision.again():
            output = self.rule.run_under(uncoupled, self.args, self.kwargs)
        account_for(self.rule, uncoupled.names, output)
        (tapped,) = self.rule.error_tap.of(output)
        return tapped

    def second(self, error: Tensor) -> list[Tensor | None]:
        """Run the model again, block by block, and return the gradients of all that is wanted."""
        rows = self.sender.counted(self.rule.error_tap.row(error))
        blocks = BlockByBlock(self.sender, self.wanted, rows, Precision(self.rule.model))
        with self.surroundings.again(), self.precision.again(), torch.enable_grad():
            output = self.rule.run_under(blocks, self.args, self.kwargs)
            (end,) = self.rule.error_tap.of(output)
            check_readout(self.rule, (end,))
            blocks.learn(end, error)
        return blocks.gradients


class FirstRun(Uncoupled):
    """The first run, which keeps nothing."""

    def entering(self, name: str, module: nn.Module) -> None:
        """Refuse backward hooks on a module around points: the module's blocks will learn before the module ends."""
        if has_own_backward_hooks(module):
            raise PointsError(
                f"module {name!r} has a backward hook and holds points, and with recompute=True each block learns "
                "before the module ends; set the hook on a point, or leave recompute=True out"
            )


class BlockByBlock(CuttingPass):
    """The second run: each block learns when its point is reached, and nothing of it is kept.

    What belongs to the backward pass, signals and gradients, has the precision of the backward pass around it.
    """

    def __init__(self, sender: Sender, wanted: Sequence[Tensor], error: Tensor, precision: Precision) -> None:
        super().__init__()
        self.sender, self.wanted, self.error, self.precision = sender, wanted, error, precision
        self.message = sender.begin(error)
        self.gradients: list[Tensor | None] = [None] * len(wanted)
        self.learning = False

    def reached(self, name: str, output: Any) -> Any:
        """Let the block below a point learn, and return the output of the point without its past."""
        output = self.seen(name, output)
        if not self.learning:  # activation checkpointing may run a point a third time, which tells nothing new
            activation, form = activation_of(name, output), self.sender.forms[name]
            if not activation.requires_grad:
                check_block(self.sender.rule, name, self.ran)
            self.ran = set()
            check_shapes(name, form, self.sender.outputs, activation.shape, self.error.shape)
            with torch.no_grad(), self.precision.again():
                sent = self.sender.signal(self.message, name, activation.shape).to(activation.dtype)
            self.learn(activation, sent)
            if self.sender.rule.learns_feedback:
                self.sender.learn(name, activation.detach(), self.error)
        return detached(output)

    def learn(self, end: Tensor, sent: Tensor) -> None:
        """Add the gradients of the block that ends here, from what is sent to its end."""
        if not end.requires_grad:
            return
        self.learning = True
        with torch.no_grad(), self.precision.again():
            # Where a skip connection passes the point, a later block needs this graph too. Otherwise nothing holds the
            # graph once the activation has been detached, and it is freed.
            found = torch.autograd.grad(end, self.wanted, sent, retain_graph=True, allow_unused=True)
        self.learning = False
        for i, gradient in enumerate(found):
            if gradient is not None:
                known = self.gradients[i]
                self.gradients[i] = gradient if known is None else known + gradient


class Precision:
    """The autocast that is on now."""

    def __init__(self, model: nn.Module) -> None:
        self.device = next(model.parameters()).device.type
        self.enabled = torch.is_autocast_enabled(self.device)
        self.dtype = torch.get_autocast_dtype(self.device)

    def again(self) -> torch.autocast:
        """Return the autocast. What it casts while no graph is recorded must not be used where one is: no cache."""
        return torch.autocast(self.device, self.dtype, self.enabled, cache_enabled=False)


class Surroundings:
    """The circumstances in which a forward pass begins: the modules' modes and states, and the random numbers."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modes = {module: module.training for module in model.modules()}
        self.state = State(model)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Return to these circumstances for a while."""
        with same_state(self.model), same_modes(self.model):
            for module, training in self.modes.items():
                module.training = training
            self.state.restore()
            yield
