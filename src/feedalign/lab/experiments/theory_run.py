"""One setting of the shallow theory, computed and drawn: what `feedalign theory` does. It claims nothing."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feedalign.errors import ArgumentError, DivergenceError
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.theory_config import TheoryConfig
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style, letter
from feedalign.theory import shallow

NAME = "theory"
MOST_STEPS = 1e15  # times are whole steps / N, and floats would begin to leave some out
ACTIVATION_LABELS = {"erf": "erf", "relu": "ReLU", "linear": "linear"}


def prepare(config: TheoryConfig) -> tuple[shallow.OrderParameters, NDArray[np.float64], NDArray[np.float64]]:
    """Draw what the config asks for.

    Returns:
        The start; F [K]; and the times, whole steps / N.

    Raises:
        ArgumentError: a value is out of range, or lists and numbers of units do not fit together.
    """
    for name, least in {"students": 1, "teachers": 1, "measurements": 2, "simulate": 0, "seed": 0}.items():
        if getattr(config, name) < least:
            raise ArgumentError(f"{name}={getattr(config, name)} must be at least {least}")
    if not config.rules or len(set(config.rules)) < len(config.rules):
        raise ArgumentError(f"rules={config.rules} must name dfa, bp, or both, each once")
    rng = np.random.default_rng(config.seed)
    A = (
        shallow.draw_readout(config.readout, config.teachers, rng)
        if isinstance(config.readout, str)
        else _numbers("readout", config.readout, "teachers", config.teachers)
    )
    start = shallow.draw_start(
        A, students=config.students, input_dim=config.input_dim, rng=rng, w_std=config.w_std, v_std=config.v_std
    )
    F = (
        shallow.draw_feedback(config.feedback, start, rng)
        if isinstance(config.feedback, str)
        else _numbers("feedback", config.feedback, "students", config.students)
    )
    if not 0 < config.end_time * config.input_dim <= MOST_STEPS:
        raise ArgumentError(
            f"end_time={config.end_time} must be a positive number, and not beyond {MOST_STEPS:.0g} steps"
        )
    times = np.geomspace(min(0.1, config.end_time / 10), config.end_time, config.measurements)
    times = np.unique(np.concatenate([[0.0], np.rint(times * config.input_dim) / config.input_dim]))
    theory, simulation = _arguments(config, F)
    shallow.integrate(start, times=[0.0], **theory)  # no step, but all arguments are looked at
    if config.simulate:
        shallow.simulate(start, times=times[:1], **simulation)
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
        "seeds": range(config.simulate),
    }
    return theory, simulation


def _numbers(name: str, values: tuple[float, ...], units: str, count: int) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    if len(array) != count or not np.isfinite(array).all():
        raise ArgumentError(f"{name}={values} must be {count} finite numbers, one for each of {units}={count}")
    return array


def run(config: TheoryConfig, progress: Progress) -> xr.Dataset:
    """Integrate, and simulate if asked to, under each rule.

    Where a rule diverges or stops early, theory is NaN at the times after it; `ended_at` and the variables last_* say
    when it ended and in which finite state. A simulation that diverges is NaN throughout.
    """
    start, F, times = prepare(config)
    K, M, rules = start.students, start.teachers, config.rules
    of_theory, of_simulation = _arguments(config, F)
    theory: dict[str, NDArray[np.float64]]
    theory = {name: np.full((len(rules), len(times)), np.nan) for name in ("generalisation_error", "overlap")}
    last = {"Q": np.empty((len(rules), K, K)), "R": np.empty((len(rules), K, M)), "v": np.empty((len(rules), K))}
    ended_at, diverged, simulation_diverged = (
        np.empty(len(rules)),
        np.zeros(len(rules), bool),
        np.full(len(rules), np.nan),
    )
    simulation: dict[str, NDArray[np.float64]]
    simulation = {name: np.full((len(rules), config.simulate, len(times)), np.nan) for name in theory}
    for i, rule in enumerate(rules):
        try:
            exact = shallow.integrate(start, times=times, rule=rule, **of_theory)
            ended_at[i], final = exact.times[-1], exact.final
        except DivergenceError as error:
            ended_at[i], diverged[i], final = error.time, True, cast(shallow.OrderParameters, error.state)
            exact = shallow.integrate(start, times=times[times <= error.time], rule=rule, **of_theory)
        known = int((times <= ended_at[i]).sum())
        for name, values in theory.items():
            values[i, :known] = getattr(exact, name)[:known]
        last["Q"][i], last["R"][i], last["v"][i] = final.Q, final.R, final.v
        if config.simulate:
            try:
                runs = shallow.simulate(
                    start, times=times, rule=rule, progress=partial(_within, progress, i, len(rules)), **of_simulation
                )
                for name, values in simulation.items():
                    values[i] = getattr(runs, name)
            except DivergenceError as error:
                simulation_diverged[i] = error.time
        _within(progress, i, len(rules), 1, 1)
    unit, other = ("rule", "student"), ("rule", "student", "student_2")
    return xr.Dataset(
        {f"{name}_theory": (("rule", "time"), values) for name, values in theory.items()}
        | {f"{name}_simulation": (("rule", "seed", "time"), values) for name, values in simulation.items()}
        | {
            "last_Q": (other, last["Q"]),
            "last_R": ((*unit, "teacher"), last["R"]),
            "last_v": (unit, last["v"]),
            "ended_at": ("rule", ended_at, {"units": "steps / input dimension"}),
            "diverged": ("rule", diverged),
            "simulation_diverged_at": ("rule", simulation_diverged, {"units": "steps / input dimension"}),
            "T": (("teacher", "teacher_2"), start.T),
            "A": ("teacher", start.A),
            "feedback": ("student", F),
        },
        coords={"rule": list(rules), "time": ("time", times, {"units": "steps / input dimension"})},
        attrs={"activation": config.activation},
    )


def _within(progress: Progress, rule: int, rules: int, done: int, total: int) -> None:
    """Tell how far all rules are when the present one is this far."""
    progress(100 * rule + 100 * done // total, 100 * rules)


def diverged(dataset: xr.Dataset) -> bool:
    """Whether theory or simulation diverged under any rule."""
    return bool(dataset.diverged.any() or dataset.simulation_diverged_at.notnull().any())


def table(dataset: xr.Dataset, rows: int = 10) -> tuple[list[str], list[list[str]]]:
    """Return the heading and some rows, evenly spread over the times, of ε_g and cos(v, F) in theory, for each rule."""
    heading, columns = ["time"], [[f"{time:.4g}" for time in dataset.time.values]]
    for name, label in (("generalisation_error", "ε_g"), ("overlap", "cos(v, F)")):
        for rule in dataset.rule.values:
            heading.append(f"{label} {RULE_LABELS[rule]}")
            values = dataset[f"{name}_theory"].sel(rule=rule).values
            columns.append(["–" if np.isnan(value) else f"{value:.4g}" for value in values])
    chosen = np.unique(np.linspace(0, dataset.sizes["time"] - 1, rows).round().astype(int))
    return heading, [[column[i] for column in columns] for i in chosen]


def summary(dataset: xr.Dataset) -> list[str]:
    """Say in sentences what happened, and what the solutions' theory makes of it."""
    activation, A, F = dataset.attrs["activation"], dataset.A.values, dataset.feedback.values
    K, M = dataset.sizes["student"], dataset.sizes["teacher"]
    lines = [f"teacher readout A = {_vector(A)}, feedback F = {_vector(F)}"]
    for rule in dataset.rule.values:
        of_rule = dataset.sel(rule=rule)
        end, label = f"t = {float(of_rule.ended_at):.4g}", RULE_LABELS[rule]
        if of_rule.diverged:
            lines.append(f"{label}: DIVERGED at {end}; the last finite state is kept; lower --lr or --end-time")
            continue
        if not np.isnan(of_rule.simulation_diverged_at):
            lines.append(f"{label}: a simulated run DIVERGED at t = {float(of_rule.simulation_diverged_at):.4g}")
        overlap = of_rule.overlap_theory.values
        sentence = f"{label}: ends at {end} with v = {_vector(of_rule.last_v.values)}"
        if not np.isnan(overlap).all():
            peak = int(np.nanargmax(overlap))
            sentence += f"; cos(v, F) peaks at {overlap[peak]:.3f}, t = {float(dataset.time[peak]):.3g}"
        lines.append(sentence)
        if dataset.sizes["seed"] and np.isnan(of_rule.simulation_diverged_at):
            finals = [of_rule[f"{name}_simulation"].isel(time=-1) for name in ("generalisation_error", "overlap")]
            error, cosine = (f"{float(runs.mean()):.3g} ± {float(runs.std()):.1g}" for runs in finals)
            lines.append(f"{label}: {dataset.sizes['seed']} simulated runs end at ε_g = {error}, cos(v, F) = {cosine}")
        if K == M and activation != "linear":
            state = shallow.OrderParameters(
                Q=of_rule.last_Q.values, R=of_rule.last_R.values, T=dataset.T.values, v=of_rule.last_v.values, A=A
            )
            minimum, distance = shallow.nearest_minimum(state, activation)
            lines.append(f"{label}: nearest global minimum has v = {_vector(minimum.v)}, distance {distance:.2g}")
    if activation == "erf" and K == M:
        lines.append(
            f"DFA is expected at v = {_vector(shallow.selected_solution(A, F))}, the minimum with the largest v·F"
        )
    if activation == "relu":
        can = "can" if shallow.can_recover(A, F) else "cannot"
        lines.append(
            f"signs: F has {(F > 0).sum()} positive and {(F < 0).sum()} negative entries, A {(A > 0).sum()} and "
            f"{(A < 0).sum()}: DFA {can} learn this teacher"
        )
    if activation == "linear":
        lines.append("a linear student has no isolated minima")
    return lines


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"


def plot(dataset: xr.Dataset) -> Figure:
    """Draw ε_g and cos(v, F) over time: theory as lines, the simulation's mean and standard deviation as points."""
    K, M = dataset.sizes["student"], dataset.sizes["teacher"]
    after = dataset.isel(time=slice(1, None))
    with figure_style():
        figure = Figure(figsize=(6.6, 2.8), layout="constrained")
        for axes, name, label, text, title in zip(
            figure.subplots(1, 2),
            ("generalisation_error", "overlap"),
            (r"generalisation error $\epsilon_g$", r"overlap $\cos(v, F)$"),
            "ab",
            (f"{ACTIVATION_LABELS[dataset.attrs['activation']]}, K = {K}, M = {M}", "readout and feedback"),
            strict=True,
        ):
            for rule in dataset.rule.values:
                colour, of_rule = RULE_COLOURS[rule], after.sel(rule=rule)
                axes.plot(after.time, of_rule[f"{name}_theory"], color=colour, label=f"{RULE_LABELS[rule]}, theory")
                runs = of_rule[f"{name}_simulation"].isel(time=slice(None, None, 2))
                if runs.sizes["seed"]:
                    axes.errorbar(
                        runs.time, runs.mean("seed"), runs.std("seed"), fmt="o", ms=3, lw=1, color=colour,
                        markerfacecolor="white", label=f"{RULE_LABELS[rule]}, {runs.sizes['seed']} simulated runs",
                    )  # fmt: skip
            axes.set(xscale="log", xlabel="time (steps / input dimension)", ylabel=label)
            letter(axes, text, title)
        left, right = figure.axes
        if after.generalisation_error_theory.notnull().any():  # a log axis needs something to show
            left.set_yscale("log")
        left.legend()
        right.axhline(1, color="0.7", lw=0.8, zorder=0)
    return figure
