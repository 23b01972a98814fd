"""What can be wrong between a model and its points, in words: rules raise the first, `validate` lists them all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from torch import Tensor, nn

from feedalign.checks import shown


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        name: dotted name of the point or parameter; "output" for the model's output.
        problem: what was found.
        remedy: what to do.
    """

    name: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name!r} {self.problem}; {self.remedy}"

    @property
    def words(self) -> str:
        """The same with the name as a word of the sentence."""
        return f"{self.name} {self.problem}; {self.remedy}"


def listed(model: nn.Module) -> str:
    """Return the dotted names of a model's modules in one line."""
    return ", ".join(name for name, _ in model.named_modules() if name) or "(it has no named modules)"


def unknown_point(name: str, model: nn.Module) -> Problem:
    """A name the model has no module of."""
    every = dict(model.named_modules(remove_duplicate=False))
    if name in every and name:
        first = next(known for known, module in model.named_modules() if module is every[name])
        return Problem(name, f"is another name of the module {first!r}", f"take {first!r}, which stands for both")
    close = get_close_matches(name, [known for known, _ in model.named_modules() if known])
    remedy = f"did you mean {' or '.join(map(repr, close))}?" if close else f"choose from: {listed(model)}"
    return Problem(name, "is no module of the model", remedy)


def repeated_point(name: str) -> Problem:
    """A point given more than once."""
    return Problem(name, "is given twice", "name each point once")


def never_ran(name: str) -> Problem:
    """A point that no forward pass calls."""
    return Problem(name, "never ran in a forward pass", "choose a module that the model's forward calls")


def replaced(name: str) -> Problem:
    """A point in whose place another module stands since the model was wrapped."""
    return Problem(
        name,
        "was not reached, since another module stands in its place now, and its block would learn by backprop",
        "unwrap the model and wrap it again after such a change",
    )


def ran_unseen(name: str) -> Problem:
    """A point whose parameters were used in a pass, though the hooks on its module did not run."""
    return Problem(
        name,
        "was not reached, although the output is computed from its parameters, so they would learn by backprop: the "
        "model uses them without calling the module, or runs code that was compiled before the model was wrapped",
        "call the module, or call torch.compiler.reset() after wrapping",
    )


def no_tensor(name: str, output: object) -> Problem:
    """A point that returns no activation."""
    got = f"Tensor of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
    return Problem(
        name,
        f"gives a {got}, expected one floating-point Tensor, or a tuple whose first entry is the activation",
        "choose a point within or after it; an nn.Identity applied to the Tensor that is meant will do",
    )


def other_batch_axes(name: str, activation: Tensor, batch_shape: Sequence[int]) -> Problem:
    """A point whose activation does not begin with the batch axes of the output."""
    return Problem(
        name,
        f"has shape {tuple(activation.shape)}, but the output has the batch axes {tuple(batch_shape)}",
        "a point must begin with the same batch axes and have features after them; batch_dims= says how many axes "
        "of the output are the batch, and recurrent modules need batch_first=True",
    )


def time_first(name: str, module: nn.Module) -> Problem:
    """A recurrent point whose first axis is not the batch."""
    return Problem(
        name,
        f"is a {type(module).__name__} with batch_first=False, so its first axis is time, while the output's is the "
        "batch",
        "give it batch_first=True and inputs [batch, time, features]",
    )


def several_widths(name: str, widths: Collection[int]) -> Problem:
    """A point that runs at several widths, where it has one matrix."""
    return Problem(
        name,
        f"has {' and '.join(map(str, sorted(widths)))} features in one forward pass",
        "a module that runs at several widths cannot be one point, give each its own",
    )


def nothing_reaches_the_output(name: str) -> Problem:
    """A point whose activation has no influence on the output."""
    return Problem(
        name,
        "gives an activation of which nothing reaches the output, so backprop has no error for it to agree with",
        "choose a point that the output is computed from; of a tuple the first entry is the activation, an nn.Identity "
        "applied to another entry makes a point of that one",
    )


def in_place(name: str, culprit: str) -> Problem:
    """A point whose activation is changed after it."""
    return Problem(
        name,
        f"is worked on in place by {culprit}, while the block below it may need its activation for its gradient",
        "give that module inplace=False, write h = h + x for h += x, or choose a point after the operation",
    )


def no_readout() -> Problem:
    """A model that has nothing to train after its last point."""
    return Problem(
        "output",
        "carries no gradient: no trainable parameter lies after the last feedback point",
        "choose points before the readout, and do not detach the output",
    )


def no_error_there(found: object, entry: object, batch_dims: int | None, choices: str) -> Problem:
    """An output, or entry of one, that is no Tensor of the axes it must have."""
    expected = "[*batch, outputs]" if batch_dims is None else f"with {batch_dims} batch axes"
    if not isinstance(found, Tensor):
        got, remedy = type(found).__name__, "output= says which entry carries the error"
        remedy += f", choose from: {choices}" if choices else ""
    else:
        got = f"shape {tuple(found.shape)} of {found.dtype}"
        floats = found.is_floating_point()
        remedy = "batch_dims= says how many axes are the batch" if floats else "return logits or values, not labels"
    entry_of = "" if entry is None else f"entry {entry!r} "
    return Problem("output", f"{entry_of}must be a floating-point Tensor {expected}, got {got}", remedy)


def unknown_entry(output: object, entry: object, choices: str) -> Problem:
    """An entry that the output does not have."""
    return Problem(
        "output",
        f"is a {type(output).__name__} without the entry {shown(entry)}",
        f"output= says which entry carries the error, choose from: {choices}"
        if choices
        else "leave output= out where the model returns one Tensor",
    )


def computed_entry(entry: object) -> Problem:
    """A function that gives no entry of the output, but something new."""
    return Problem(
        "output",
        f"is not what {entry!r} returned: a Tensor computed from an entry",
        "the error is taken at an entry as it is, return one from output=, and compute in the loss",
    )


def fixed_output(output: object) -> str:
    """An output in which the Tensor at which the error is taken cannot be exchanged."""
    return Problem(
        "output",
        f"is a {type(output).__name__}, in which the Tensor that carries the error cannot be exchanged",
        "return a Tensor, tuple, list, dict, dataclass, or an object whose attribute output= names",
    ).words


def loss_inside(entry: object, number: object) -> Problem:
    """A loss, at the entry `number`, that the model computes itself from the Tensor at which the error is taken."""
    return Problem(
        "output",
        f"holds a loss that the model has computed itself from the entry {entry!r}: the entry {number!r}, one number "
        "with a gradient, from which no error would come to the hidden layers",
        "name the module that gives this entry in error_at=, or compute the loss outside of the model, from what the "
        f"wrapped model returns; if {number!r} is a metric and no loss, let the model return it detached",
    )


def place_runs_twice(place: str) -> Problem:
    """A module named in `error_at` that runs more than once in a forward pass."""
    return Problem(
        place,
        "runs twice in one forward pass, and the error is taken at one Tensor",
        "name a module that runs once, such as an nn.Identity applied to the Tensor that the loss is computed from",
    )


def place_never_ran(place: str) -> Problem:
    """A module named in `error_at` that does not run in a forward pass."""
    return Problem(
        place,
        "did not run in this forward pass, so no error would come to the hidden layers",
        "name a module that the model's forward calls; after a module was replaced, wrap the model again",
    )


def above_the_place(point: str, place: str) -> Problem:
    """A point that does not run before a module named in `error_at`."""
    return Problem(
        point,
        f"does not end before {place!r}, where the error is taken",
        "choose points that run before that module, and give error_at= a module above all points",
    )


def place_leads_nowhere(places: Sequence[str]) -> Problem:
    """Modules named in `error_at` from which nothing reaches what the model returns."""
    return Problem(
        " and ".join(places),
        "leads to nothing that the model returned, so no loss would send an error from there to the hidden layers",
        "name a module through which the loss passes",
    )


def loss_around_the_place(places: Sequence[str]) -> Problem:
    """A backward pass that comes to what the model returned, but not to the modules named in `error_at`."""
    return Problem(
        " and ".join(places),
        "is not passed by this loss, so the backward pass sends no error to the hidden layers",
        "name a module through which the loss passes, or take this gradient within net.backprop()",
    )


def no_gradient(name: str) -> Problem:
    """A point whose block has parameters that are to learn, but whose activation carries no gradient."""
    return Problem(
        name,
        "gives an activation without a gradient, although parameters of its block are to learn",
        "checkpoint with use_reentrant=False, do not detach inside of the block, or give the parameters of the block "
        "requires_grad_(False)",
    )


def unreached(name: str, runs: bool) -> Problem:
    """A parameter no feedback reaches."""
    why, remedy = "its module never ran in a forward pass", "call the module, remove it"
    if runs:
        why = "what is computed from it goes into no point and not into the output"
        remedy = "make a point of that (an nn.Identity applied to it will do)"
    return Problem(
        name,
        f"no feedback reaches this parameter: {why}",
        f"{remedy}, or give the parameter requires_grad_(False)",
    )


def tied(names: Sequence[str], ends: Sequence[str]) -> Problem:
    """A parameter that several blocks use."""
    others = f" (also {', '.join(names[1:])})" if len(names) > 1 else ""
    blocks = " and ".join("at the output" if end == "output" else f"at {end!r}" for end in ends)
    return Problem(
        names[0],
        f"this parameter{others} is used in {len(ends)} blocks, which end {blocks}: its gradient is a sum of what "
        "different feedback says",
        "give each block a parameter of its own, or choose points such that all its uses lie in one block",
    )


def bypassed(parameters: Sequence[str], points: Sequence[str]) -> Problem:
    """Parameters below a point from which a path leads to the output around the point."""
    others = f" (also {shortened(parameters[1:])})" if len(parameters) > 1 else ""
    return Problem(
        parameters[0],
        f"this parameter{others} gets the true gradient as well: from it a path leads to the output around "
        f"{shortened([repr(point) for point in points])}",
        "make a point where the paths have come together again (an nn.Identity applied to the sum, or to what is "
        "joined, will do), or a point of what the paths part from",
    )


def shortened(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
