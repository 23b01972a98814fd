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
from feedalign.feedback import Form
from feedalign.rules.accounting import check_recording
from feedalign.rules.direct.containers import Ends
from feedalign.rules.direct.hooks import CuttingPass
from feedalign.rules.direct.sender import Sender, check_shapes, signal
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
    matrix: Tensor  # the numbers that are held for the point
    form: Form  # how F is made of them
    shape: torch.Size  # of the activation
    waits: bool  # whether the signal is made when the turn of the block comes


class Uncoupled(CuttingPass):
    """A pass that cuts the graph at the points and sends nothing there."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []  # of the points reached so far; a module that runs twice is here twice

    def reached(self, name: str, output: Any) -> Any:
        """Return the output of a point without its past."""
        self.names.append(name)
        return detached(output)


class Cut(CuttingPass):
    """A forward pass on the rule's graph.

    Args:
        rule: what is sent.
        learning: whether the rule gathers and learns in the backward pass.
        masks: which entries of the inputs are real; None if all of them are.

    Attributes:
        learning: whether this is a pass of training, which accounts for every point.
        runs: of the points reached so far.
        hidden: the activation of each run with its past, or a token in its place; empty once they are tied.
        without_gradient: the points among them whose activations carry no gradient, and the modules with parameters
            that have run since the point before.
        ends: of the runs within modules that have backward hooks: where such a module may end.
        sent_in: number of the last backward pass in which the error was sent; -1 before the first, and None in a pass
            that sends nothing.
        taking: where the error is taken; None once the forward pass is over, since the graph holds this object.
    """

    def __init__(self, rule: DirectRule, *, learning: bool = True, masks: PassMasks | None = None) -> None:
        super().__init__()
        self.slot, self.learning, self.learns = rule.slot, learning, learning and rule.learns_feedback
        self.sender = Sender(rule, learning=learning, masks=masks)
        self.sent_in: int | None = None
        self.message: Tensor | None = None  # of the last backward pass, for the signals that are made later
        self.runs: list[Run] = []
        self.hidden: list[Tensor] = []
        self.without_gradient: list[tuple[str, set[str]]] = []
        self.ends = Ends()
        tie = partial(rule.tie, self) if learning else self.tie  # measured are controls as if they were DFA
        watched = bool(rule.error_tap.places) and learning and not torch.compiler.is_compiling()
        self.taking: Taking | None = Taking(rule.error_tap, rule.blocks[-1].parts, tie, watched=watched)

    def reached(self, name: str, output: Any) -> Any:
        """Keep the activation of a point, and return the output of the point without its past."""
        if self.taking is not None and self.taking.seen:
            raise PointsError(f"point {problems.above_the_place(name, self.taking.seen[0])}")
        plain = isinstance(output, Tensor) and output.requires_grad  # the usual case, in short
        if not plain:
            check_recording(name)
        activation = output if plain else activation_of(name, output)
        if not activation.requires_grad:
            self.without_gradient.append((name, self.ran))
        self.ran = set()
        shape, matrix, form = activation.shape, self.sender.matrix(name), self.sender.forms[name]
        # What learns must see all activations first. A compiler orders the work itself.
        waits = shape.numel() >= LARGE and not (self.learns or torch.compiler.is_compiling())
        run = Run(name, matrix, form, shape, waits)
        self.runs.append(run)
        self.hidden.append(self._end(run, activation))
        given = output.detach() if plain else detached(output)
        if self.calling:
            self.ends.runs[len(self.runs) - 1] = activation, activation_of(name, given)
        return given

    def entering(self, name: str, module: nn.Module) -> None:  # noqa: ARG002
        """Note that a module around points begins to run, and that the module has backward hooks."""
        self.ends.begun.append(len(self.runs))

    def leaving(self, name: str, module: nn.Module, hook: BackwardHook, output: Any) -> None:
        """See that the backward hooks of a module around points are called, if the module ends with a point."""
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
        for name, _, form, shape, _ in self.runs:
            check_shapes(name, form, self.sender.outputs, shape, output.shape)
            if (mask := self.sender.mask_of(name, output)) is not None:
                real_features(mask, shape, output.shape[: output.ndim - 1 - form.summed], name)
        self.sent_in = -1
        hidden, self.hidden = self.hidden, []  # held here, the graph would outlive its backward pass
        self.ends.runs.clear()
        return send(output, self.signals, hidden, keep=self.learns)

    def signals(self, error: Tensor, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Return what each activation is sent for an error [*batch, C], and let the rule learn from the error.

        `hidden` has the activations if the rule learns its feedback; else it is empty.
        """
        self.slot.enter_backward(Uncoupled())
        if not torch.compiler.is_compiling():
            self.sent_in = backward_pass()
        sender = self.sender
        error = sender.counted(error)
        message = sender.begin(error)
        if hidden:  # no zip(strict=False), which the compiler of torch 2.7 reads as strict=True
            for run, activation in zip(self.runs, hidden, strict=True):
                sender.learn(run.name, activation, error)
        if any(run.waits for run in self.runs):
            self.message = message
        return [  # nothing for a token: its signal is made when the turn of its block comes
            message.new_empty(0) if waits else signal(message, matrix, form, shape, sender.mask_of(name, message))
            for name, matrix, form, shape, waits in self.runs
        ]

    def _end(self, run: Run, activation: Tensor) -> Tensor:
        """Return what the output is tied to for one run: the activation, or a token in its place."""
        return receive(activation, partial(self._later, run)) if run.waits else activation

    def _later(self, run: Run) -> Tensor:
        assert self.message is not None
        mask = self.sender.mask_of(run.name, self.message)
        return signal(self.message, run.matrix, run.form, run.shape, mask)
