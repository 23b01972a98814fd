"""`diagnose`: will feedback alignment work in this network, on this data?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feedalign.alignment import alignability
from feedalign.checks import positive_number, whole_number
from feedalign.diagnosis.batches import Source
from feedalign.diagnosis.expectation import Moment, expectations
from feedalign.diagnosis.looking import look
from feedalign.diagnosis.preparing import copies_in_rules, task_for
from feedalign.diagnosis.result import Diagnosis
from feedalign.diagnosis.training import Trained, layers_of, train
from feedalign.errors import ArgumentError
from feedalign.feedback import Feedback

Progress = Callable[[int, int], None]

# Of training. A step takes a millisecond at the least, so this many take a night.
MOST_STEPS = 10**7


@torch.inference_mode(False)
@torch.enable_grad()
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
    random state. For an example see `Diagnosis`.

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
        compare: also train a bare model in `ConditionedDFA`, with the same weights, batches and feedback, and compare.
        steps: of training.
        lr: learning rate of plain gradient descent.
        samples: how many are looked at before training, at most. With over 1000 outputs they are fewer: their errors
            are ten million numbers, at most a batch more.
        probe: how many alignment is measured on, at most. They are the first samples of the batches.
        name: of the data or model, for the text.
        progress: called with (steps done, steps in all) after every step.

    Raises:
        ArgumentError: an argument is out of range, model, loss and batches do not fit together, or the user's code
            raised; says what to do. A network that diverges raises nothing, see `Diagnosis.diverged`.
    Source: Refinetti et al. (2021), section 3, for what is expected.
    """
    check_numbers(seed=seed, steps=steps, lr=lr, samples=samples, probe=probe)
    of_bare = {"points": points, "feedback": feedback, "output": output, "batch_dims": batch_dims}
    nets = copies_in_rules(net, seed=seed, compare=compare, of_bare=of_bare)
    first = next(iter(nets.values()))
    task = task_for(first, loss_fn, batches, probe=probe, seed=seed, steps=steps, lr=lr)
    seen = look(first, task, samples)
    P, expected = expectations(seen, [F.detach().double().cpu().numpy() for F in first.feedback_matrices.values()])
    layers, known = layers_of(first), alignability(first).layers
    bounds = [known.get(label) for label in layers.values()]
    trained: dict[str, Trained] = {}

    def tell(done: int) -> None:
        if progress is not None:
            progress(len(trained) * steps + done, len(nets) * steps)

    for rule, each in nets.items():
        trained[rule] = train(each, task, tell)
    return Diagnosis(
        name=name,
        samples=len(seen.errors),
        probe=len(task.probe_errors),
        steps=steps,
        isotropic=seen.isotropic,
        points=tuple(first.points),
        layers=tuple(layers),
        errors=seen.moment,
        input_output=Moment.of(seen.cov_yx),
        conditioner=P,
        expected=expected,
        trained=trained,
        alignability=np.array([each.bound if each else np.nan for each in bounds]),
        alignability_channelwise=np.array([each.channelwise if each else np.nan for each in bounds]),
    )


def check_numbers(*, seed: int, steps: int, lr: float, samples: int, probe: int) -> None:
    """Raise ArgumentError unless all numbers that `diagnose` takes are in range."""
    whole_number("seed", seed, 0, 2**64 - 1)
    for name, value in {"steps": steps, "samples": samples, "probe": probe}.items():
        whole_number(name, value, 1)
    if steps > MOST_STEPS:
        raise ArgumentError(f"steps={steps} would take days; at most {MOST_STEPS:,} are possible")
    positive_number("lr", lr)
