"""Is the rule the rule? Every gradient of a wrapped model against a slow reference in float64, and against backprop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import arguments, copied, mapped, recordable, same_random_numbers
from feedalign.errors import ArgumentError
from feedalign.rules import DirectRule, Wrapped, check_whole, check_wrapped
from feedalign.verify import reference
from feedalign.verify.reference import Gradients


@dataclass(frozen=True, eq=False)
class RuleCheck:
    """How far a rule's gradients are from its reference, and how they lie to backprop's.

    Attributes:
        rule: its name.
        errors: by parameter, max |gradient − reference| over max |reference| (at least 1e-3 of the model's largest);
            of learned feedback too, under "feedback.<point>", for the matrix after its update.
        cosines: by parameter, cosine with backprop's gradient; NaN where either is zero or missing. All 1 means that
            the rule *is* backprop on these data.
    """

    rule: str
    errors: dict[str, float]
    cosines: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest error; of a correct rule some 1e-15, float64's precision."""
        return max(self.errors.values(), default=0.0)

    def __str__(self) -> str:
        width = max(map(len, self.errors), default=0)
        rows = [
            f"{name:{width}}  error {error:8.1e}  cosine with backprop {self.cosines.get(name, float('nan')):7.4f}"
            for name, error in self.errors.items()
        ]
        return "\n".join([f"{self.rule}: worst error {self.worst:.1e} against the reference", *rows])


@torch.inference_mode(False)
def check_rule(
    net: Wrapped,
    loss_fn: Callable[[Any, Any], Tensor],
    x: Any,
    y: Any,
    *,
    message: Callable[[Tensor], Tensor] | None = None,
) -> RuleCheck:
    """Compare every parameter's gradient under the rule with one worked out block by block from the rule's formula.

    The reference cuts the model into its blocks, runs plain autograd within each, and writes down what goes from one
    to the next: F_l e, or B_l in place of the transposed weight. It shares no code with the rule, but takes from
    `Frozen` which parameters are in which block. Both work on copies in float64 that start from the same random state,
    so dropout draws the same masks; the model itself, its gradients, batch statistics and feedback and the global
    random state stay as they are.

    >>> import torch, feedalign as fa
    >>> net = fa.DFA(fa.networks.MLP([4, 8, 3]), seed=0)
    >>> check = fa.check_rule(net, torch.nn.functional.cross_entropy, torch.ones(2, 4), torch.tensor([0, 1]))
    >>> check.worst < 1e-12
    True

    Args:
        net: a wrapped model, in the mode it is in.
        loss_fn: scalar loss of (output, y); it gets float64.
        x: input, a tuple of inputs, or a dict of inputs by keyword.
        y: whatever loss_fn takes.
        message: for a `DirectRule` of your own, what it sends in place of the error e [*batch, C], written down anew.

    Returns:
        Errors and cosines by parameter.

    Raises:
        ArgumentError: `net` is not wrapped, its rule has no reference here and `message` is not given, or `fully_shard`
            has sharded the model.
        OutputError: no error can be taken of the model's output.
    """
    check_wrapped(net)
    check_whole(net, "check_rule")
    args, kwargs = _double(arguments(net.model, x))
    target = _double(recordable(y))
    start = copied(net).double()
    start.zero_grad()
    with _precision_told():
        if not start.drawn:
            start.prepare(args, kwargs)
        ran, referred, true = copied(start), copied(start), copied(start).unwrap()
        with same_random_numbers(net), torch.enable_grad():
            loss_fn(ran(*args, **kwargs), target).backward()
    # What was drawn for this batch the reference must have; what was learned in it, it must work out.
    used = start if net.learns_feedback else ran
    matrices = {name: matrix.clone() for name, matrix in used.feedback_matrices.items()}
    masks = ran.masks_of(args, kwargs) if isinstance(ran, DirectRule) else None
    with same_random_numbers(net), torch.enable_grad():
        expected, learned = reference.gradients(
            referred, matrices, lambda model: model(*args, **kwargs), lambda got: loss_fn(got, target), message, masks
        )
    with same_random_numbers(net), torch.enable_grad():
        loss_fn(true(*args, **kwargs), target).backward()
    return RuleCheck(type(net).__name__, *_compared(ran, true, expected, learned))


@contextmanager
def _precision_told() -> Iterator[None]:
    """Raise ArgumentError in place of torch's own error where a model cannot run in float64."""
    try:
        yield
    except RuntimeError as error:
        # Each operation of torch refuses a precision in words of its own.
        if not any(word in str(error).lower() for word in ("dtype", "double", "float64")):
            raise
        raise ArgumentError(
            f"a copy of the model in float64 fails: {error}. The model makes Tensors of a fixed precision, such as "
            "x.float(), or uses an operation that has no float64; write x.to(self.layer.weight.dtype) there, or let "
            "the model use another operation, so that the rule can be checked in float64"
        ) from error


def _compared(
    ran: Wrapped, true: nn.Module, expected: Gradients, learned: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the errors of gradients and learned feedback, and the cosines of gradients with backprop's, by name."""
    found, of_backprop, after = _gradients(ran.model), _gradients(true), ran.feedback_matrices
    # Some gradients are zero but for rounding, as that of a bias before batch norm: nothing can be asked of those.
    floor = 1e-3 * max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    names = [name for name, _ in ran.model.named_parameters()]
    errors = {name: _error(found.get(name), expected.get(name), floor) for name in names}
    errors |= {f"feedback.{name}": _error(after[name], matrix, 0.0) for name, matrix in learned.items()}
    return errors, {name: _cosine(found.get(name), of_backprop.get(name)) for name in names}


def _gradients(model: nn.Module) -> Gradients:
    return {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}


def _double(value: Any) -> Any:
    """Return a value with every floating-point Tensor in it, also in tuples, lists and dicts, in float64."""
    return mapped(value, lambda tensor: tensor.detach().double() if tensor.is_floating_point() else tensor)


def _error(found: Tensor | None, expected: Tensor | None, floor: float) -> float:
    """Largest difference over the largest entry, or the floor if that is more; a missing gradient is a zero one."""
    zero = torch.zeros(())
    found, expected = zero if found is None else found, zero if expected is None else expected
    scale = max(float(expected.abs().max()) or float(found.abs().max()), floor)
    difference = float((found - expected).abs().max())
    return difference / scale if difference else 0.0


def _cosine(found: Tensor | None, true: Tensor | None) -> float:
    if found is None or true is None or not found.any() or not true.any():
        return float("nan")
    a, b = found.flatten() / found.norm(), true.flatten() / true.norm()
    return float((a.conj() * b).real.sum())
