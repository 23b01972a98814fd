"""`diagnose`: will feedback alignment work in this network, on this data?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn

from feedalign.alignment import alignability
from feedalign.checks import positive_number, whole_number
from feedalign.diagnosis.batches import Batches, Source, probe_of, seeded
from feedalign.diagnosis.expectation import Moment, expectations, second_moment
from feedalign.diagnosis.looking import look
from feedalign.diagnosis.preparing import check_on_probe, copies_in_rules
from feedalign.diagnosis.result import Diagnosis
from feedalign.diagnosis.training import layers_of, train
from feedalign.errors import ArgumentError
from feedalign.feedback import Feedback
from feedalign.rules import DirectRule

Progress = Callable[[int, int], None]


def diagnose(
    net: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Source,
    *,
    points: str | Iterable[str] = "auto",
    feedback: Feedback | None = None,
    seed: int = 0,
    output: Any = None,
    batch_dims: int | None = None,
    compare: bool = False,
    steps: int = 200,
    lr: float = 0.1,
    samples: int = 10_000,
    probe: int = 1000,
    name: str = "your network",
    progress: Progress | None = None,
) -> Diagnosis:
    """Tell whether direct feedback alignment works for a network on some data, and why.

    Looks at the errors of the untrained network, works out what theory expects, then trains a copy by plain gradient
    descent for some steps and measures its alignment. The network itself is not changed, and neither is any global
    random state.

    >>> import torch, feedalign as fa
    >>> x = torch.randn(256, 20, generator=torch.Generator().manual_seed(0))
    >>> batches = list(zip(x.split(32), x[:, :4].argmax(1).split(32)))
    >>> net = fa.DFA(fa.networks.MLP([20, 50, 50, 4]), seed=0)
    >>> found = fa.diagnose(net, torch.nn.functional.cross_entropy, batches, steps=50)
    >>> found.diverged
    False
    >>> bool((found.trained["dfa"].gradient_alignment[-1] > 0.3).all())
    True

    Args:
        net: a model wrapped in a direct rule, such as `feedalign.DFA`, whose feedback is kept; or a bare model, which
            is wrapped in DFA.
        loss_fn: scalar loss of (output, y).
        batches: pairs (x, y): a DataLoader, a list, or a function that returns them anew each time. Read several times,
            each time from the same random numbers. A tuple x is several inputs.
        points: of a bare model: dotted names of the feedback points, or "auto".
        feedback: of a bare model: recipe of the feedback matrices.
        seed: of the feedback of a bare model, and of the random numbers (torch, numpy, random) during the diagnosis.
        output: of a bare model: where in its output the error is taken, see `feedalign.DFA`.
        batch_dims: of a bare model: how many leading axes are the batch, see `feedalign.DFA`.
        compare: also train a bare model in `ConditionedDFA`, from the same weights, on the same batches and with the
            same feedback, and tell which of the two is faster.
        steps: of training.
        lr: learning rate of plain gradient descent.
        samples: how many are looked at before training, at most.
        probe: how many alignment is measured on, at most. They are the first ones of the batches.
        name: of the data or model, for the text.
        progress: called with (steps done, steps in all) after every step.

    Returns:
        What was found: `.table()` is the answer as text, `.figure()` a figure, `.to_dataset()` every number.

    Raises:
        ArgumentError: an argument is out of range, model, loss and batches do not fit together, or the user's code
            raised; says what to do. A network that diverges raises nothing, see `Diagnosis.diverged`.
    Source: Refinetti et al. (2021), section 3, for what is expected.
    """
    _check_numbers(steps=steps, samples=samples, probe=probe, seed=seed, lr=lr)
    if not callable(loss_fn):
        raise ArgumentError(
            f"loss_fn={loss_fn!r} is no function of (output, y); give torch.nn.functional.cross_entropy"
        )
    options = {"output": output, "batch_dims": batch_dims}
    nets = copies_in_rules(net, points=points, feedback=feedback, seed=seed, compare=compare, options=options)
    read = Batches(batches)
    with seeded(seed):
        on = probe_of(read, probe)
    check_on_probe(nets.values(), loss_fn, on, seed)
    first = next(iter(nets.values()))
    seen = look(first, loss_fn, read, samples, seed)
    matrices = [F.detach().double().cpu().numpy() for F in first.feedback_matrices.values()]
    P, expected = expectations(seen, matrices)  # before anything is trained
    bounds = _bounds(first)
    trained = {}
    for i, (rule, each) in enumerate(nets.items()):
        trained[rule] = train(
            each, loss_fn, read, on, steps=steps, lr=lr, seed=seed, progress=_within(progress, i, len(nets), steps)
        )
    return Diagnosis(
        name=name,
        samples=len(seen.errors),
        probe=next(iter(trained.values())).probe,
        steps=steps,
        isotropic=seen.isotropic,
        points=tuple(first.points),
        layers=tuple(layers_of(first)),
        errors=second_moment(seen.errors),
        input_output=Moment(seen.cov_yx @ seen.cov_yx.T),
        conditioner=P,
        expected=expected,
        trained=trained,
        alignability=bounds[0],
        alignability_channelwise=bounds[1],
    )


def _bounds(net: DirectRule) -> tuple[Any, Any]:
    """Return the alignability of every layer with the net's feedback, and with channelwise feedback."""
    known = alignability(net).layers
    found = [known.get(label) for label in layers_of(net).values()]
    return (
        np.array([np.nan if each is None else each.bound for each in found]),
        np.array([np.nan if each is None else each.channelwise for each in found]),
    )


def _within(progress: Progress | None, before: int, nets: int, steps: int) -> Callable[[int], None]:
    """Return what tells how far all nets are when the present net has taken some steps."""
    return lambda done: None if progress is None else progress(before * steps + done, nets * steps)


def _check_numbers(*, lr: float, **counts: int) -> None:
    for name, value in counts.items():
        whole_number(name, value, at_least=0, at_most=2**64 - 1) if name == "seed" else whole_number(name, value, 1)
    positive_number("lr", lr)
