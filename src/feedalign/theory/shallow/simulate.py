r"""Online learning simulated at finite input dimension, in two ways that agree in law.

*Explicit* keeps the weights and draws inputs x ~ N(0, I_N). *Reduced* keeps (Q, R, v) only, which is a Markov chain of
its own. The local fields are u = Lε, with L the Cholesky factor of their covariance and ε standard normal. Besides u a
step needs only the squared length of x, |x|² = |ε|² + c with c ~ χ²_{N−K−M}. The cost of a step does not depend on N.

Source: the explicit updates are those of Refinetti et al. (2021); the reduction is exact by rotation invariance of x.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event, Lock
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.checks import Array, one_of, refused, whole_number, whole_numbers
from feedalign.errors import ArgumentError, DivergenceError
from feedalign.memory import check_memory
from feedalign.streams import numpy_generator
from feedalign.theory.shallow.explicit import Explicit
from feedalign.theory.shallow.order_parameters import OrderParameters
from feedalign.theory.shallow.reduced import Reduced
from feedalign.theory.shallow.setting import LONGEST, Rule, Setting, check_times
from feedalign.theory.shallow.trajectory import Trajectory

# The explicit simulation keeps all weights in memory: 8 GB of them at most.
MOST_WEIGHTS = 10**9
_METHODS: dict[str, type[Reduced | Explicit]] = {"reduced": Reduced, "explicit": Explicit}


def simulate(
    start: OrderParameters,
    *,
    feedback: ArrayLike | None = None,
    lr: float,
    times: ArrayLike,
    input_dim: int,
    activation: str = "erf",
    noise_std: float = 0.0,
    rule: Rule = "dfa",
    lr_readout: float | None = None,
    batch_size: int = 1,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    method: Literal["reduced", "explicit"] = "reduced",
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Trajectory:
    """Simulate online learning from `start`, fresh Gaussian inputs at every step.

    Both methods begin with exactly the overlaps of `start`. Each seed has a generator of its own. So several seeds at
    once give the same bits as one seed at a time, on any number of threads.

    Args:
        start: state at time 0.
        feedback: F, [K]; needed by DFA. Backprop does not use it; give it to measure `Trajectory.overlap`.
        lr: η, learning rate of the first layer.
        times: when to report, in steps / input_dim, rounded to whole steps; `Trajectory.times` has the rounded ones.
        input_dim: N, at least K + M + 1.
        activation: "erf" (g(x) = erf(x/√2)), "relu" or "linear".
        noise_std: σ of the label noise.
        rule: "dfa" or "bp".
        lr_readout: η_v, learning rate of the second layer; lr unless given, 0 freezes it.
        batch_size: B, inputs a step averages its update over; more than one needs method="explicit".
        seed: seed of the inputs and the label noise.
        seeds: several seeds at once; the arrays of the trajectory then have a leading axis, one entry per seed.
        method: "reduced" or "explicit".
        threads: how many seeds run at the same time; one per core unless given.
        progress: called with (steps done, steps in all), over all seeds, about a hundred times per seed.

    Returns:
        The state at `times`; with `seeds`, all arrays but the times have a leading axis.

    Raises:
        ArgumentError: an argument is out of range or does not fit `start`.
        DivergenceError: the weights left the finite numbers. The error has the time, and the last finite state.
    """
    setting = Setting.make(start, feedback, rule, activation, lr, lr_readout, noise_std, batch_size)
    kind = _METHODS[one_of("method", method, _METHODS)]
    if kind is Reduced and setting.batch_size > 1:
        raise ArgumentError(
            f"batch_size={setting.batch_size} needs method='explicit': the reduced simulation knows inputs by their "
            "length only, not by their angles with one another"
        )
    input_dim = _check_input_dim(input_dim, start, setting, kind)
    one, several = whole_number("seed", seed, 0), None if seeds is None else whole_numbers("seeds", seeds, 0)
    if several == []:
        raise ArgumentError("seeds is empty; give at least one seed")
    threads = os.cpu_count() if threads is None else whole_number("threads", threads, 1)
    ends = check_times(times)
    if (last := np.rint(ends[-1] * input_dim)) > LONGEST:
        raise ArgumentError(f"times reach to {ends[-1]:g}, which is {last:g} steps; so many would never end")
    steps = np.rint(ends * input_dim).astype(np.int64)
    report = _Report(int(steps[-1]) * len(several or [one]), progress)

    def run(seed: int) -> tuple[Array, Array, Array]:
        return _record(kind(start, setting, input_dim, numpy_generator(seed, "simulation")), steps, report)

    Q, R, v = run(one) if several is None else _in_threads(run, several, threads, report)
    return Trajectory(steps / input_dim, Q, R, v, start, setting)


class _Report:
    """Counts the steps of all runs and reports them; once `stopped` is set, a run that reports is cancelled."""

    def __init__(self, total: int, progress: Callable[[int, int], object] | None) -> None:
        if progress is not None and not callable(progress):
            raise refused("progress", "a function of (steps done, steps in all)", progress, "or leave it out")
        self.done, self.total, self.progress = 0, total, progress
        self.lock, self.stopped = Lock(), Event()

    def __call__(self, newly_done: int) -> None:
        if self.stopped.is_set():
            raise CancelledError
        if self.progress is not None:
            with self.lock:
                self.done += newly_done
                self.progress(self.done, self.total)


def _in_threads(
    run: Callable[[int], tuple[Array, Array, Array]], seeds: Sequence[int], threads: int | None, report: _Report
) -> tuple[Array, ...]:
    """Return Q, R and v of the runs of all seeds, stacked along a new first axis."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            return tuple(np.stack(arrays) for arrays in zip(*pool.map(run, seeds), strict=True))
        except BaseException:
            report.stopped.set()  # Ctrl-C and a run that diverged need not wait for the runs of other threads
            raise


def _check_input_dim(input_dim: int, start: OrderParameters, setting: Setting, kind: type[Reduced | Explicit]) -> int:
    """Return N as an int: large enough for all directions, and so small that weights and inputs fit into memory."""
    units = start.students + start.teachers
    most = MOST_WEIGHTS // units if kind is Explicit else None
    # Each unit needs a direction of its own, and inputs one more.
    N = whole_number("input_dim", input_dim, units + 1, most, advice="K + M + 1 directions are needed")
    if kind is Explicit:
        numbers = 2 * setting.batch_size * N  # in double precision
        check_memory(f"the inputs of one step with batch_size={setting.batch_size}", numbers, "give smaller batches")
    return N


def _record(
    simulation: Reduced | Explicit, steps: NDArray[np.int64], report: Callable[[int], None]
) -> tuple[Array, Array, Array]:
    """Run a simulation, and return its Q, R and v after each of these numbers of steps."""
    records = []
    done, stride = 0, steps[-1] // 100 + 1
    for target in steps:
        while done < target:
            asked = min(stride, target - done)
            newly_done = simulation.advance(asked)
            done += newly_done
            if newly_done < asked:
                Q, R, v = simulation.order_parameters()
                time = done / simulation.input_dim
                raise DivergenceError(
                    f"the simulation diverged at t = {time:.4g}; lower lr={simulation.setting.lr} or stop before",
                    time=time,
                    state=OrderParameters(Q=Q, R=R, T=simulation.start.T, v=v, A=simulation.start.A),
                )
            report(newly_done)
        records.append(simulation.order_parameters())
    Q, R, v = (np.stack(arrays) for arrays in zip(*records, strict=True))
    return Q, R, v
