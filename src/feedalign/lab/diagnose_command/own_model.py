"""A model, loss function and batches of the user's own: what is diagnosed where `--model` is given."""

from __future__ import annotations

from torch import nn

from feedalign.diagnosis import kind_of
from feedalign.errors import ArgumentError
from feedalign.lab.diagnose_command.subject import Subject
from feedalign.lab.own_code import called, names_of_points


def made_by(spec: str, points: tuple[str, ...]) -> Subject:
    """Call "package.module:function" and return what it made.

    Args:
        spec: importable from the present folder, or installed.
        points: names of the feedback points; those that the function returns, if any, where this is empty.

    Raises:
        ArgumentError: there is no such function, it raised or called `sys.exit`, or it made something else; says what
            to do.
    """
    made, code = called("model", spec)
    name = spec.partition(":")[2]
    if not (isinstance(made, tuple) and len(made) in (3, 4)):
        raise ArgumentError(
            f"model={spec!r}: {name}() returned {kind_of(made)}, expected a tuple (model, loss function, batches), or "
            "with the names of the points as a fourth"
        )
    model, loss_fn, batches, *rest = made
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model={spec!r}: first came {kind_of(model)}, expected a torch.nn.Module")
    if not callable(loss_fn):
        raise ArgumentError(
            f"model={spec!r}: second came {kind_of(loss_fn)}, expected a loss function of (output, y), such as "
            "torch.nn.functional.cross_entropy"
        )
    named = names_of_points("model", spec, *rest) if rest else ()
    return Subject(spec, model, loss_fn, batches, points or named or "auto", code)
