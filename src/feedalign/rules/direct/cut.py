"""One forward pass of a direct rule: the graph is cut at the points, and the output is tied to what was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import BackwardHook

from feedalign.anatomy import PassMasks, Problem, activation_of, checked_place, detached, problems, real_features
from feedalign.errors import PointsError
from feedalign.rules.accounting import check_recording
from feedalign.rules.direct.containers import Ends
from feedalign.rules.direct.hooks import CuttingPass
from feedalign.rules.direct.sender import Sender, check_shapes
from feedalign.rules.direct.sending import receive, send
from feedalign.rules.direct.taking import Taking
from feedalign.torch_private import backward_pass

if TYPE_CHECKING:
    from feedalign.rules.direct.rule import DirectRule

# Numbers in one activation from which on its signal is made when its block's turn comes: 1 MB in single precision.
# A network of many layers then holds one signal at a time. For smaller signals that costs more time than it saves.
LARGE = 2**18


class Run(NamedTuple):
    """One run of a point in a forward pass. A module that runs twice has two runs."""

    name: str  # of the point
    shape: torch.Size  # of the activation
    waits: bool  # whether the signal is made when the turn of the block comes


class Uncoupled(CuttingPass):
    """A pass that cuts the graph at the points and sends nothing there."""

    def reached(self, name: str, output: Any) -> Any:
        """Return the output of a point without its past."""
        self.names.append(name)
        return detached(self.seen(name, output) if self.calling else output)


class Cut(CuttingPass):
    """A forward pass on the rule's graph.

    Args:
        rule: what is sent.
        learning: whether the rule gathers and learns in the backward pass.
        masks: which entries of the inputs are real; None if all of them are.

    Attributes:
        learning: whether this is a pass of training, which accounts for every point.
        sends: whether anything is sent to the points.
        waiting: whether any signal is made later.
        runs: of the points reached so far.
        hidden: the activation of each run with its past, or a token in its place; empty once they are tied.
        without_gradient: the points among them whose activations carry no gradient, and the modules with parameters
            that have run since the point before.
        ends: of the runs within modules that have backward hooks, where such a module may end; None without any.
        sent_in: number of the last backward pass in which the error was sent; -1 before the first.
        taking: where the error is taken; None once the forward pass is over, since the graph holds this object.
    """

    def __init__(self, rule: DirectRule, *, learning: bool = True, masks: PassMasks | None = None) -> None:
        super().__init__()
        self.slot, self.learning, self.learns = rule.slot, learning, learning and rule.learns_feedback
        self.sender = Sender(rule, learning=learning, masks=masks)
        self.sent_in = -1
        self.message: Tensor | None = None  # of the last backward pass, for the signals that are made later
        self.waiting = False
        self.runs: list[Run] = []
        self.hidden: list[Tensor] = []
        self.without_gradient: list[tuple[str, set[str]]] = []
        self.ends: Ends | None = None
        self.sends = rule.sends or not learning  # measured are controls as if they were DFA
        watched = bool(rule.error_tap.places) and learning and not torch.compiler.is_compiling()
        self.taking: Taking | None = Taking(rule.error_tap, rule.blocks[-1].parts, self.tie, watched=watched)

    def reached(self, name: str, output: Any) -> Any:
        """Keep the activation of a point, and return the output of the point without its past."""
        if self.calling:
            output = self.seen(name, output)
        if self.taking is not None and self.taking.seen:
            raise PointsError(f"point {problems.above_the_place(name, self.taking.seen[0])}")
        if isinstance(output, Tensor) and output.requires_grad:  # the usual case, in short
            activation, given = output, output.detach()
        else:
            check_recording(name)
            activation, given = activation_of(name, output), detached(output)
            if not activation.requires_grad:
                self.without_gradient.append((name, self.ran))
        if self.ran:
            self.ran = set()
        shape = activation.shape
        # What learns must see all activations first. A compiler orders the work itself.
        waits = shape.numel() >= LARGE and not (self.learns or torch.compiler.is_compiling())
        run = Run(name, shape, waits)
        self.waiting = self.waiting or waits
        self.hidden.append(self._end(run, activation) if waits else activation)
        if self.ends is not None:
            self.ends.runs[len(self.runs)] = activation, activation_of(name, given)
        self.names.append(name)
        self.runs.append(run)
        return given

    def entering(self, name: str, module: nn.Module) -> None:  # noqa: ARG002
        """Note that a module around points begins to run, and that the module has backward hooks."""
        self.ends = self.ends or Ends()
        self.ends.begun.append(len(self.runs))

    def leaving(self, name: str, module: nn.Module, hook: BackwardHook, output: Any) -> None:
        """See that the backward hooks of a module around points are called, if the module ends with a point."""
        assert self.ends is not None
        found = self.ends.of(name, module, hook, output)
        if found is not None:
            i, activation = found
            self.hidden[i] = self._end(self.runs[i], activation)

    def taken(self, place: str, tensor: Tensor | Problem) -> Tensor | None:
        """Return the Tensor at a place where the error is taken, tied to what was cut off."""
        taking = self.taking
        if taking is None:
            return None
        found = checked_place(place, tensor, taking.seen)
        taking.seen.append(place)
        return taking.tied(taking.tap.places.index(place), found)

    def tie(self, output: Tensor) -> Tensor:
        """Return the output, [*batch, C]. In its backward pass the error reaches everything that was cut off."""
        if not self.sends:
            return output
        sender, batch = self.sender, output.shape[:-1]
        plain = sender.masks is None and output.shape[-1] == sender.outputs
        for name, shape, _ in self.runs:
            form = sender.forms[name]
            if not plain or form.summed or shape != (*batch, form.rows):  # else they fit
                check_shapes(name, form, sender.outputs, shape, output.shape)
                if (mask := sender.mask_of(name, output)) is not None:
                    real_features(mask, shape, output.shape[: output.ndim - 1 - form.summed], name)
        hidden, self.hidden = self.hidden, []  # held here, the graph would outlive its backward pass
        if self.ends is not None:
            self.ends.runs.clear()
        return send(output, self.signals, hidden, keep=self.learns)

    def signals(self, error: Tensor, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Return what each activation is sent for an error [*batch, C], and let the rule learn from the error.

        `hidden` has the activations if the rule learns its feedback; else it is empty.
        """
        if not torch.compiler.is_compiling():
            self.slot.enter_backward(Uncoupled)
            self.sent_in = backward_pass()
        sender = self.sender
        error = sender.counted(error)
        message = sender.begin(error)
        if hidden:  # no zip(strict=False), which the compiler of torch 2.7 reads as strict=True
            for run, activation in zip(self.runs, hidden, strict=True):
                sender.learn(run.name, activation, error)
        if self.waiting:
            self.message = message
        return [  # nothing for a token: its signal is made when the turn of its block comes
            message.new_empty(0) if waits else sender.signal(message, name, shape) for name, shape, waits in self.runs
        ]

    def _end(self, run: Run, activation: Tensor) -> Tensor:
        """Return what the output is tied to for one run: the activation, or a token in its place."""
        return receive(activation, partial(self._later, run)) if run.waits else activation

    def _later(self, run: Run) -> Tensor:
        assert self.message is not None
        return self.sender.signal(self.message, run.name, run.shape)
