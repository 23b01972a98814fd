"""Does feedback reach the model? Everything that is wrong between a model and its points, at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import (
    Entries,
    ErrorTap,
    Problem,
    copied,
    is_computed_from,
    name_problems,
    names_of,
    one_fewer,
    place_problems,
    problems,
    recordable,
    same_random_numbers,
    sample_axes,
    tensors_in,
)
from feedalign.rules import check_bare, check_whole
from feedalign.verify.watching import Uses, Watched


@dataclass(frozen=True)
class Validation:
    """What `validate` found; true if that is nothing.

    Attributes:
        points: the points, in the order given.
        problems: (name, problem, remedy) of everything that is wrong.
        parameters: how many trainable parameter tensors the model has.
    """

    points: tuple[str, ...]
    problems: tuple[Problem, ...]
    parameters: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        points = f"{len(self.points)} point{'s' * (len(self.points) != 1)} ({', '.join(self.points)})"
        if self.ok:
            return f"no problems: {self.parameters} parameters learn with {points}"
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}"
        lines = (f"{name}: {problem}\n    → {remedy}" for name, problem, remedy in self.problems)
        return "\n".join([f"{count} with {points}", *lines])


@torch.inference_mode(False)
def validate(
    model: nn.Module,
    points: str | Iterable[str],
    *inputs: Any,
    output: Entries = None,
    batch_dims: int | None = None,
    error_at: str | Iterable[str] | None = None,
    **keywords: Any,
) -> Validation:
    """List everything that keeps a direct rule (`DFA` and its kin) from training a model with these points.

    A constructor raises the first error only, and some of these raise none: names that are no modules, or given twice;
    points that never run, give no Tensor, do not begin with the output's batch axes, run at several widths, are worked
    on in place, or from which nothing reaches the output; an output without a Tensor to take the error at, or without
    a readout; parameters no feedback reaches; parameters used in several blocks (tied weights), whose gradient is a
    sum of what different feedback says; parameters from which a path leads to the output around a point, so that they
    get the true gradient as well; a module of `error_at` that does not run once, or leads to nothing, or does not lie
    above all points. A module that runs several times *as* a point is not tied, and a skip connection
    passes no point if the sum, or what is computed from it, is a point.

    One forward pass runs on a copy of the model, in the mode it is in, cut at the points; what reaches what is read off
    autograd's graph. A second pass, on one sample fewer, shows whether axes of points agree with those of the output by
    chance. The model, its gradients, batch statistics and hooks and the global random state stay as they are.

    >>> import torch, feedalign as fa
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> print(fa.validate(model, ("1",), torch.ones(2, 4)))
    no problems: 4 parameters learn with 1 point (1)
    >>> print(fa.validate(model, ("0",), torch.ones(2, 4), output="logits"))
    1 problem with 1 point (0)
    output: is a Tensor without the entry 'logits'
        → leave output= out where the model returns one Tensor

    Args:
        model: any module, not wrapped.
        points: dotted names, or "auto", see `DirectRule`.
        *inputs: of the model.
        output: see `DirectRule`.
        batch_dims: see `DirectRule`.
        error_at: see `DirectRule`.
        **keywords: the model's inputs by keyword.

    Returns:
        The problems, each with its dotted name and a remedy; print it.

    Raises:
        PointsError: the model is wrapped, `points` is empty, or "auto" finds none.
        ArgumentError: `batch_dims` is no number of axes, or `fully_shard` has sharded the model.
    """
    check_bare(model)
    check_whole(model, "validate")
    tap = ErrorTap.given(output, batch_dims, error_at)
    names = names_of(model, points)
    known = dict(model.named_modules())
    watched = Watched(copied(model), [name for name in dict.fromkeys(names) if name and name in known])
    unfit = place_problems(model, tap.places, names)
    given = recordable((inputs, keywords))
    with same_random_numbers(model), torch.enable_grad():
        returned, tapped = watched.run(tap if not unfit else ErrorTap(), *given)
    found = name_problems(model, names) + watched.problems + unfit
    if unfit:
        tops = tensors_in(returned)
    else:
        tops, more = _tops(watched, tap, returned, tapped)
        found += more
        if not more and not isinstance(tapped, Problem):
            found += _problems_with_fewer(model, watched.points, tap, given, len(tapped[0]))
    found += _reach_problems(watched, tops, tensors_in(returned))
    return Validation(names, tuple(found), sum(parameter.requires_grad for parameter in model.parameters()))


def _tops(
    watched: Watched, tap: ErrorTap, returned: Any, tapped: tuple[Tensor, ...] | Problem
) -> tuple[list[Tensor], list[Problem]]:
    """Return the Tensors from which the error comes down, and what is wrong where it is taken."""
    entries = tensors_in(returned)
    if isinstance(tapped, Problem):
        return entries, [tapped]
    found = list(_shape_problems(watched, tap, tap.batch_shape(tapped[0])))
    above: list[Tensor] = []
    if not tap.places and (inside := tap.loss_inside(returned, tapped)) is not None:
        found.append(inside)
    if tap.places:  # what lies above the place is a part of the readout
        above = [entry for entry in entries if any(is_computed_from(entry, one) for one in tapped)]
        found += [] if above else [problems.place_leads_nowhere(tap.places)]
    return [*tapped, *above], found


def _problems_with_fewer(
    model: nn.Module, points: list[str], tap: ErrorTap, given: tuple[Any, Any], samples: int
) -> list[Problem]:
    """Return the points whose axes agree with those of the output in this batch by chance; see `trace`."""
    fewer = one_fewer(*given, samples)
    if fewer is None:
        return []
    watched = Watched(copied(model), points)
    try:
        with same_random_numbers(model), torch.enable_grad():
            _, tapped = watched.run(tap, *fewer)
    except Exception:  # of the model's own, which takes no batch of another size
        return []
    if isinstance(tapped, Problem):
        return []
    wrong = _shape_problems(watched, tap, tap.batch_shape(tapped[0]))
    return [one._replace(problem=f"with {samples - 1} samples in place of {samples}: {one.problem}") for one in wrong]


def _shape_problems(watched: Watched, tap: ErrorTap, batch_shape: torch.Size) -> Iterator[Problem]:
    """Points whose activations do not go with the batch axes of the output, or have several widths.

    Tokens may be others than those of the output, as in an encoder: then the point has the samples in common with it.
    """
    for name in watched.points:
        module = watched.model.get_submodule(name)
        wrong, widths = [], set()
        for cut in watched.cuts:
            if cut.point == name:
                by_token = cut.by_token and tap.batch_dims is None
                sample = sample_axes(name, module, cut.activation, batch_shape, by_token)
                if isinstance(sample, Problem):
                    wrong.append(sample)
                else:
                    widths.add(sample[-1] if by_token and len(sample) > 1 else sample.numel())
        if wrong:
            yield wrong[0]
        elif len(widths) > 1:
            yield problems.several_widths(name, widths)


def _reach_problems(watched: Watched, tops: list[Tensor], returned: list[Tensor]) -> Iterator[Problem]:
    """Points from which nothing reaches the output or that it gets round; parameters that feedback reaches wrongly."""
    below = [watched.uses(cut.activation) for cut in watched.cuts]
    of_output = set().union(*map(watched.uses, tops))
    yield from _dead_points(watched, below, {leaf for leaf, _ in of_output})
    names: dict[int, list[str]] = {}
    for name, parameter in watched.model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            names.setdefault(id(parameter), []).append(name)
    frozen = any(not parameter.requires_grad for parameter in watched.model.parameters())
    if not frozen and not any(leaf in names for leaf, _ in of_output):
        yield problems.no_readout()
    # The ends of blocks that each use of a parameter goes to, by parameter and use; "" is the output.
    ends = [*zip((cut.point for cut in watched.cuts), below, strict=True), ("", of_output)]
    goes: dict[int, dict[Any, set[str]]] = {}
    for end, found in ends:
        for leaf, operation in found:
            goes.setdefault(leaf, {}).setdefault(operation, set()).add(end)
    # Other entries of the output bring gradients of their own, if the loss uses them.
    reached = goes.keys() | {leaf for entry in returned for leaf, _ in watched.uses(entry)}
    around: dict[tuple[str, ...], list[str]] = {}
    for key, known_as in names.items():
        uses = list(goes.get(key, {}).values())
        if key not in reached:
            yield problems.unreached(known_as[0], any(name.rpartition(".")[0] in watched.ran for name in known_as))
        # One use that goes to several ends, as what lies below a branching does, is no tie.
        elif any(one.isdisjoint(other) for one in uses for other in uses):
            tied = dict.fromkeys(end or "output" for end, _ in ends if any(end in use for use in uses))
            yield problems.tied(known_as, list(tied))
        # The same use goes to points, and to the output around these points.
        elif passed := tuple(dict.fromkeys(end for end, _ in ends if end and any({end, ""} <= use for use in uses))):
            around.setdefault(passed, []).append(known_as[0])
    yield from (problems.bypassed(learning, passed) for passed, learning in around.items())


def _dead_points(watched: Watched, below: list[Uses], output: set[int]) -> Iterator[Problem]:
    """Points of whose runs none has a path to the output, be it through later points."""
    alive, reaching = set(output), set()
    for cut, found in zip(reversed(watched.cuts), reversed(below), strict=True):  # a run is computed from earlier ones
        if id(cut.leaf) in alive:
            reaching.add(cut.point)
            alive |= {leaf for leaf, _ in found}
    dead = dict.fromkeys(cut.point for cut in watched.cuts if cut.point not in reaching)
    yield from map(problems.nothing_reaches_the_output, dead)
