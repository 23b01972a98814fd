"""A forward pass of a direct rule from its beginning to its end: run the model, tie the output, check the pass."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from feedalign.anatomy import check_all_ran, is_chain, is_computed_from, operations_below, problems, tensors_in
from feedalign.errors import OutputError, PointsError
from feedalign.rules.accounting import account_for
from feedalign.rules.direct.cut import Cut, Uncoupled

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
            account_for(rule, [run.name for run in cut.runs], output)
        return _tied_inside(rule, cut, output) if rule.error_tap.places else _tied_at_the_end(rule, cut, output)
    finally:
        cut.taking = None  # the graph holds the pass, so the pass must not hold the graph


def _tied_at_the_end(rule: DirectRule, cut: Cut, output: Any) -> Any:
    """Return the output with the entries tied at which the error is taken."""
    tapped = rule.error_tap.of(output, training=rule.model.training)
    if cut.learning:
        _check_entries(rule, cut, output, tapped)
    taking = cut.taking
    assert taking is not None
    made = _made_of(tapped, output) if cut.learning else set()
    taking.watched = bool(made)
    tied = tuple(taking.tied(i, one) for i, one in enumerate(tapped))
    if all(after is before for after, before in zip(tied, tapped, strict=True)):
        return output
    return taking.beside(rule.error_tap.put(output, tapped, tied), made)


def _made_of(tapped: tuple[Tensor, ...], output: Any) -> set[int]:
    """Return the ids of the other Tensors that a model returns, and has computed from where the error is taken."""
    if output is tapped[0] or torch.compiler.is_compiling():  # no compiler sees the graph
        return set()
    others = [one for one in tensors_in(output) if one.grad_fn is not None and not any(one is each for each in tapped)]
    ends = {one.grad_fn for one in tapped}
    if not others or all(node not in ends for node in operations_below(others)):
        return set()
    return {id(one) for one in others if any(is_computed_from(one, each) for each in tapped)}


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
        repeat = Uncoupled()
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(lambda *_: rule.slot.enter_backward(repeat))
    return output


def _check_entries(rule: DirectRule, cut: Cut, output: Any, tapped: tuple[Tensor, ...]) -> None:
    """Raise an error where something that is to learn would get no gradient, or another one than the rule's."""
    check_readout(rule, tapped)
    structured = output is not tapped[0] and not torch.compiler.is_compiling()  # no compiler sees the graph
    if structured:
        for number in (one for one in tensors_in(output) if not one.ndim):
            if any(is_computed_from(number, one) for one in tapped):
                raise OutputError(f"the model's {problems.loss_inside(rule.error_tap.entry)}")
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
    every = is_chain(rule.model)
    modules = [each for one in blocks for each in (one.modules if every else one.going_with({point, *ran}))]
    held = (p for module in modules for p in rule.model.get_submodule(module).parameters(recurse=False))
    if any(parameter.requires_grad for parameter in held):
        raise PointsError(f"point {problems.no_gradient(point)}")
