"""Which solver, and which tolerances, suit the equations of shallow networks?

The error of a solver is the largest absolute difference of any entry of Q, R and v, at 41 times, from DOP853 at the
smallest tolerances. The time is the CPU time of the fastest of five calls, so other programs hardly disturb it.

Run: python benchmarks/solver_choice.py
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from _timing import save

from feedalign.theory import shallow

TIMES, CALLS, N = 41, 5, 500
EXACT: dict[str, Any] = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-15}
DEFAULT = (1e-8, 1e-10)
TOLERANCES = ((1e-6, 1e-8), DEFAULT, (1e-10, 1e-12))
METHODS = ("LSODA", "DOP853", "RK45", "Radau")
CASES = (("dfa", 0.1, 1e3), ("bp", 0.1, 1e3), ("dfa", 1.0, 1e3), ("dfa", 1.0, 1e4))  # rule, η, time at the end


def two_units() -> tuple[shallow.OrderParameters, Any]:
    """Return the start and the feedback of the page on the equations, K = M = 2."""
    rng = np.random.default_rng([0, 0])
    start = shallow.OrderParameters.from_weights(
        w=0.01 * rng.standard_normal((2, N)),
        w_teacher=rng.standard_normal((2, N)),
        v=0.01 * rng.standard_normal(2),
        A=np.ones(2),
    )
    return start, rng.standard_normal(2)


def positive(students: int) -> tuple[shallow.OrderParameters, Any]:
    """Return a start with positive feedback, M = 2."""
    rng = np.random.default_rng(1)
    start = shallow.draw_start([1.0, 1.0], students=students, input_dim=N, rng=rng, w_std=0.01, v_std=0.01)
    return start, shallow.draw_feedback("positive", start, rng)


def measure(start: shallow.OrderParameters, setting: dict[str, Any], solver: dict[str, Any]) -> dict[str, float]:
    exact = shallow.integrate(start, **setting, **EXACT)
    seconds = []
    for _ in range(CALLS):
        begin = time.process_time()
        found = shallow.integrate(start, **setting, **solver)
        seconds.append(time.process_time() - begin)
    error = max(np.abs(getattr(found, name) - getattr(exact, name)).max() for name in ("Q", "R", "v"))
    return {"error": float(f"{error:.2g}"), "ms": float(f"{1e3 * min(seconds):.3g}")}


def rows() -> list[dict[str, Any]]:
    found = []
    start, feedback = two_units()
    for rule, lr, end in CASES:
        setting = {"feedback": feedback, "lr": lr, "rule": rule, "times": np.geomspace(0.1, end, TIMES)}
        case = {"table": "methods", "rule": rule, "lr": lr, "end": round(end)}
        for method in METHODS:
            solver = {"method": method, "rtol": DEFAULT[0], "atol": DEFAULT[1]}
            found.append({**case, "method": method, **measure(start, setting, solver)})
    for rule in ("dfa", "bp"):
        setting = {"feedback": feedback, "lr": 0.1, "rule": rule, "times": np.geomspace(0.1, 1e3, TIMES)}
        for rtol, atol in TOLERANCES:
            case = {"table": "tolerances", "rule": rule, "rtol": rtol}
            found.append({**case, **measure(start, setting, {"rtol": rtol, "atol": atol})})
    for activation in ("erf", "relu"):
        for students in (2, 4):
            start, feedback = positive(students)
            times = np.geomspace(0.1, 1e3, TIMES)
            setting = {"feedback": feedback, "lr": 0.1, "activation": activation, "times": times}
            for rtol, atol in TOLERANCES:
                case = {"table": "activations", "activation": activation, "K": students, "rtol": rtol}
                found.append({**case, **measure(start, setting, {"rtol": rtol, "atol": atol})})
    return found


if __name__ == "__main__":
    save("solver_choice", rows())
