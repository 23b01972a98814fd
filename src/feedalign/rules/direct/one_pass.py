"""A forward pass of a direct rule from its beginning to its end: run the model, tie the output, check the pass."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from feedalign.anatomy import check_all_ran, origin, problems, tensors_in
from feedalign.errors import OutputError, PointsError
from feedalign.rules.accounting import account_for
from feedalign.rules.direct.cut import Cut, Uncoupled
from feedalign.torch_private import any_forward_hooks, backward_pass

if TYPE_CHECKING:
    from feedalign.rules.direct.rule import DirectRule


def run_pass(rule: DirectRule, cut: Cut, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the model of a rule under a pass, and return its output, tied to what the pass has cut off.

    PointsError if a point was not reached, or runs above the place of the error, or its block gets no gradient;
    OutputError if the error cannot be taken, or no loss could send it.
    """
    try:
        output = rule.run_under(cut, args, kwargs)
        if cut.learning:
            account_for(rule, cut.names, output)
        return _tied_inside(rule, cut, output) if rule.error_tap.places else _tied_at_the_end(rule, cut, output)
    finally:
        cut.taking = None  # the graph holds the pass, so the pass must not hold the graph


def _tied_at_the_end(rule: DirectRule, cut: Cut, output: Any) -> Any:
    """Return the output with the entries tied at which the error is taken."""
    tap = rule.error_tap
    tapped = (output,) if tap.is_output(output) else tap.of(output, training=rule.model.training)
    if cut.learning:
        _check_entries(rule, cut, output, tapped)
    taking = cut.taking
    assert taking is not None
    tied = [taking.tied(i, one) for i, one in enumerate(tapped)]
    if not cut.sends:
        return output
    # The modules of a chain compute no loss, but a user's hook on them may. Compiled code keeps no hook.
    own_loss = not rule.chain or any_forward_hooks(rule.unhooked)
    if cut.learning and own_loss and not torch.compiler.is_compiling():
        _refuse_ways_around(cut, tapped, tap.entry)
    return tied[0] if output is tapped[0] else tap.put(output, tapped, tied)


def _refuse_ways_around(cut: Cut, tapped: tuple[Tensor, ...], entry: object) -> None:
    """Let a backward pass fail that comes to where the error is taken, but not through what the wrapped model returns.

    The model may have computed a loss from there, and have put it anywhere: into the output, an object, an attribute.
    """

    def check(_gradients: Any) -> None:
        if cut.sent_in != backward_pass():
            raise OutputError(_loss_around_the_entry(entry))

    for operation in {origin(one) for one in tapped}:
        if operation is not None:
            operation.register_prehook(check)


def _loss_around_the_entry(entry: object) -> str:
    """Return the words for a loss that passes by what the wrapped model returns."""
    output, given = ("the output", "the output") if entry is None else (f"output={entry!r}", "the entry")
    return (
        f"{output} is not passed by this loss, which is computed from what the model itself has made of {given}, so "
        f"the backward pass sends no error to the hidden layers; compute the loss from {given} that the wrapped model "
        f"returns, name the module that gives {given} in error_at=, or take this gradient within net.backprop()"
    )


def _tied_inside(rule: DirectRule, cut: Cut, output: Any) -> Any:
    """Return the output of a model in which the error was taken inside of the pass."""
    taking = cut.taking
    assert taking is not None
    check_all_ran(rule.error_tap.places, taking.seen)
    if cut.learning:
        _check_blocks(rule, cut)
    output = taking.guarded(output)
    if not torch.compiler.is_compiling():
        # The backward pass comes to modules above the place before it comes to the rule. If activation checkpointing
        # repeats one of these, the graph must be cut there as it was the first time.
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(lambda *_: rule.slot.enter_backward(Uncoupled))
    return output


def _check_entries(rule: DirectRule, cut: Cut, output: Any, tapped: tuple[Tensor, ...]) -> None:
    """Raise an error where something that is to learn would get no gradient, or another one than the rule's."""
    check_readout(rule, tapped)
    structured = output is not tapped[0] and not torch.compiler.is_compiling()  # no compiler sees the graph
    if structured and (wrong := rule.error_tap.loss_inside(output, tapped)) is not None:
        raise OutputError(f"the model's {wrong.words}")
    _check_blocks(rule, cut)


def check_readout(rule: DirectRule, tapped: tuple[Tensor, ...]) -> None:
    """Raise OutputError if nothing is to learn above the last point, although no parameter of the model is frozen."""
    learns = any(one.requires_grad for one in tapped)
    if not learns and all(parameter.requires_grad for parameter in rule.model.parameters()):
        raise OutputError(f"the model's {problems.no_readout().words}")


def _check_blocks(rule: DirectRule, cut: Cut) -> None:
    for name, ran in cut.without_gradient:
        check_block(rule, name, ran)


def check_block(rule: DirectRule, point: str, ran: Collection[str]) -> None:
    """Raise PointsError if a block is to learn, has run, and the activation at its end carries no gradient.

    A block that a pass skips, as layer dropout does, has not run. `ran` has the modules with parameters that have run
    since the point before; of a chain all have run.
    """
    blocks = [block for block in rule.blocks if block.point == point]
    modules = [each for one in blocks for each in (one.modules if rule.chain else one.going_with({point, *ran}))]
    held = (p for module in modules for p in rule.model.get_submodule(module).parameters(recurse=False))
    if any(parameter.requires_grad for parameter in held):
        raise PointsError(f"point {problems.no_gradient(point)}")
