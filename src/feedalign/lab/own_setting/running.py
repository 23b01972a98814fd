"""One setting of the shallow theory: drawn, integrated, simulated if asked to, and kept in a folder of its own."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from feedalign.checks import positive_number, whole_number
from feedalign.errors import ArgumentError, DivergenceError, TimeLimitError
from feedalign.lab.files import check_folder, write_file
from feedalign.lab.options import TheoryConfig
from feedalign.lab.own_setting.showing import plot
from feedalign.lab.progress import Progress, Watch, unwatched
from feedalign.lab.runs import StoredRun, run_once
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.streams import derived_seed, numpy_generator
from feedalign.style import svg
from feedalign.theory import shallow

NAME = "theory"
# An integration of ordinary size takes seconds. With very large numbers the equations are so stiff that it never ends.
MAX_SECONDS = 300.0
MOST_STEPS = 1e15  # times are whole steps / N; beyond 2^53 floats cannot tell neighbouring steps apart
# Of table and figure; of simulated runs together, which take an hour or two.
MOST_MEASUREMENTS, MOST_SIMULATED = 10**5, 10**10
QUANTITIES = ("generalisation_error", "overlap")


def compute(
    config: TheoryConfig, runs: Path = Path("runs"), progress: Watch = unwatched, *, max_seconds: float = MAX_SECONDS
) -> StoredRun:
    """Compute a setting, unless `runs` holds it already, and draw its figure.

    Args:
        config: the setting.
        runs: folder of the runs; made if missing. The run lies in `runs/theory/<hash of the setting>`.
        progress: called with "theory"; returns a context manager that gives a function of (done, total) to be called.
        max_seconds: how long each integration, and the simulation under each rule, may take. This does not decide the
            result, so it is no part of the setting.

    Returns:
        The run; its folder holds figure.svg beside result.nc.

    Raises:
        ArgumentError: a value of the config is out of range, or `runs` cannot be written. Raised before any work.
        DataError: the run cannot be stored or read.
        TimeLimitError: max_seconds were over. Nothing is stored.
    """
    positive_number("max_seconds", max_seconds)
    check_folder("runs", runs)
    prepare(config)
    with progress(NAME) as tell:
        stored = run_once(NAME, config, partial(run, config, tell, max_seconds), runs)
    write_file(stored.folder / "figure.svg", svg(plot(stored.dataset)))
    return stored


def prepare(config: TheoryConfig) -> tuple[shallow.OrderParameters, NDArray[np.float64], NDArray[np.float64]]:
    """Draw what the config asks for.

    Returns:
        The start; F [K]; and the times, whole steps / N.

    Raises:
        ArgumentError: a value is out of range, or lists and numbers of units do not fit together.
    """
    for name, least in {"students": 1, "teachers": 1, "simulate": 0, "seed": 0}.items():
        whole_number(name, getattr(config, name), least)
    whole_number("measurements", config.measurements, 2, MOST_MEASUREMENTS)
    if not config.rules or len(set(config.rules)) < len(config.rules):
        raise ArgumentError(f"rules={config.rules} must name dfa, backprop, or both, each once")
    A = (
        shallow.draw_readout(config.readout, config.teachers, numpy_generator(config.seed, "readout"))
        if isinstance(config.readout, str)
        else _numbers("readout", config.readout, "teachers", config.teachers)
    )
    start = shallow.draw_start(
        A,
        students=config.students,
        input_dim=config.input_dim,
        rng=numpy_generator(config.seed, "start"),
        w_std=config.w_std,
        v_std=config.v_std,
    )
    F = (
        shallow.draw_feedback(config.feedback, start, numpy_generator(config.seed, "feedback"))
        if isinstance(config.feedback, str)
        else _numbers("feedback", config.feedback, "students", config.students)
    )
    if not 0 < config.end_time * config.input_dim <= MOST_STEPS:
        raise ArgumentError(
            f"end_time={config.end_time} must be a positive number, and not beyond {MOST_STEPS:.0g} steps"
        )
    steps = config.simulate * config.end_time * config.input_dim
    if steps > MOST_SIMULATED:
        raise ArgumentError(
            f"simulate={config.simulate} asks for {steps:.3g} steps, runs times end_time times input_dim; at most "
            f"{MOST_SIMULATED:,} can be simulated, so lower one of the three"
        )
    times = np.geomspace(min(0.1, config.end_time / 10), config.end_time, config.measurements)
    times = np.unique(np.concatenate([[0.0], np.rint(times * config.input_dim) / config.input_dim]))
    theory, simulation = _arguments(config, F)
    shallow.integrate(start, times=[0.0], **theory)  # no step, but all arguments are looked at
    if config.simulate:
        one = simulation | {"seeds": simulation["seeds"][:1]}
        shallow.simulate(start, times=times[:1], **one)
    return start, F, times


def _arguments(config: TheoryConfig, F: NDArray[np.float64]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `integrate` and `simulate` are given besides start, times and rule."""
    common: dict[str, Any] = {
        "feedback": F,
        "lr": config.lr,
        "lr_readout": config.lr_readout,
        "activation": config.activation,
        "noise_std": config.noise_std,
        "batch_size": config.batch_size,
    }
    theory = common | {
        "method": config.method, "rtol": config.rtol, "atol": config.atol, "stop_at_error": config.stop_at_error,
    }  # fmt: skip
    simulation = common | {
        "method": "reduced" if config.batch_size == 1 else "explicit",
        "input_dim": config.input_dim,
        "seeds": [derived_seed(config.seed, "simulation", i) for i in range(config.simulate)],
    }
    return theory, simulation


def _numbers(name: str, values: tuple[float, ...], units: str, count: int) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    if len(array) != count or not np.isfinite(array).all():
        raise ArgumentError(f"{name}={values} must be {count} finite numbers, one for each of {units}={count}")
    return array


def run(config: TheoryConfig, progress: Progress, max_seconds: float) -> xr.Dataset:
    """Integrate the setting under each rule, and simulate it if asked to.

    `max_seconds` is how long each integration, and the simulation under each rule, may take; TimeLimitError after it.

    Where a rule diverges or stops early, the variables *_theory are NaN at the times after it; `ended_at` and the
    variables last_* say when the rule ended and in which finite state. If a simulated run diverges, *_simulation is
    NaN throughout for its rule, and `simulation_diverged_at` says when.
    """
    start, F, times = prepare(config)
    of_theory, of_simulation = _arguments(config, F)
    parts = []
    for i, rule in enumerate(config.rules):

        def tell(done: int, total: int, before: int = i) -> None:
            progress(100 * before + 100 * done // total, 100 * len(config.rules))

        part = _integrated(start, rule, times, of_theory | {"max_seconds": max_seconds})
        limited = _limited(tell, max_seconds, float(times[-1]))
        part = part.assign(_simulated(start, rule, times, of_simulation, limited))
        parts.append(part.expand_dims(rule=[rule]))
        tell(1, 1)
    units = {"units": "steps / input dimension"}
    dataset = xr.concat(parts, "rule", data_vars="all").assign(
        T=(("teacher", "teacher_2"), start.T), A=("teacher", start.A), feedback=("student", F)
    )
    dataset.ended_at.attrs, dataset.simulation_diverged_at.attrs = units, units
    return dataset.assign_coords(time=("time", times, units)).assign_attrs(activation=config.activation)


def _integrated(
    start: shallow.OrderParameters, rule: str, times: NDArray[np.float64], arguments: dict[str, Any]
) -> xr.Dataset:
    """Theory under one rule, and how it ended."""
    name = shallow_rule(rule)
    try:
        exact = shallow.integrate(start, times=times, rule=name, **arguments)
        ended_at, diverged, final = float(exact.times[-1]), False, exact.final
    except DivergenceError as error:
        ended_at, diverged, final = error.time, True, cast(shallow.OrderParameters, error.state)
        exact = shallow.integrate(start, times=times[times <= error.time], rule=name, **arguments)
    known = int((times <= ended_at).sum())
    after = (0, len(times) - known)
    theory = {name: np.pad(getattr(exact, name)[:known], after, constant_values=np.nan) for name in QUANTITIES}
    return xr.Dataset(
        {f"{name}_theory": ("time", values) for name, values in theory.items()}
        | {
            "last_Q": (("student", "student_2"), final.Q),
            "last_R": (("student", "teacher"), final.R),
            "last_v": ("student", final.v),
            "ended_at": ended_at,
            "diverged": diverged,
        }
    )


def _simulated(
    start: shallow.OrderParameters, rule: str, times: NDArray[np.float64], arguments: dict[str, Any], progress: Progress
) -> xr.Dataset:
    """Simulated runs under one rule; no seeds give variables without entries."""
    nothing = np.full((len(arguments["seeds"]), len(times)), np.nan)
    simulation, diverged_at = dict.fromkeys(QUANTITIES, nothing), np.nan
    if arguments["seeds"]:
        try:
            runs = shallow.simulate(start, times=times, rule=shallow_rule(rule), progress=progress, **arguments)
            simulation = {quantity: getattr(runs, quantity) for quantity in QUANTITIES}
        except DivergenceError as error:
            diverged_at = error.time
    return xr.Dataset(
        {f"{quantity}_simulation": (("seed", "time"), values) for quantity, values in simulation.items()}
        | {"simulation_diverged_at": diverged_at}
    )


def _limited(progress: Progress, max_seconds: float, end_time: float) -> Progress:
    """Return a progress that raises TimeLimitError once a simulation, which begins now, has taken so many seconds."""
    deadline = time.monotonic() + max_seconds

    def tell(done: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise TimeLimitError(
                f"the simulation took longer than max_seconds={max_seconds:g} and was {100 * done // total} % done; "
                "lower simulate, end_time or input_dim, or allow more seconds",
                time=end_time * done / total,
                state=None,
            )
        progress(done, total)

    return tell
