"""How fast are the equations and the simulation of the shallow theory?

- A compiled Euler method with the step 1/1000 beside `integrate`, on the same right-hand side up to t = 500,
  interleaved in one process, and how far apart they end.
- One evaluation of the right-hand side for K + M = 4, 8, 16, 32 units, K = M, and the exponent it grows with.
- ReLU integrated to t = 1000 at K = M = 2.
- A step of the reduced simulation at N = 500 and 50 000, of the explicit one at N = 500, and the bare cost of drawing N
  normal numbers, interleaved, for each activation.
- The experiment relu-recovery at its quick preset.

Run: python benchmarks/shallow_theory.py
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import numpy as np
from _timing import interleaved, save
from numba import njit
from numpy.typing import NDArray

from feedalign.lab.experiments import compute, relu_recovery
from feedalign.theory import shallow
from feedalign.theory.shallow.ode import drift

ACTIVATIONS = {"erf": 0, "linear": 1, "relu": 2}  # as the compiled loops number them
N = 500


@njit
def euler(y, steps, dt, T, A, F):  # type: ignore[no-untyped-def]
    y = y.copy()
    for _ in range(steps):
        y += dt * drift(y, T, A, F, False, 0, 0.1, 0.1, 0.0, 1)
    return y


@njit
def draw_inputs(rng, steps, n):  # type: ignore[no-untyped-def]
    total = 0.0
    for _ in range(steps):
        total += rng.standard_normal(n)[0]
    return total


@njit
def evaluate(y, T, A, F, activation, times):  # type: ignore[no-untyped-def]
    total = 0.0
    for _ in range(times):
        total += drift(y, T, A, F, False, activation, 0.1, 0.1, 0.0, 1)[0]
    return total


def setting(K: int, input_dim: int = N) -> tuple[shallow.OrderParameters, NDArray[np.float64]]:
    """Return a start and a feedback vector for K = M."""
    rng = np.random.default_rng(0)
    start = shallow.draw_start(rng.standard_normal(K), students=K, input_dim=input_dim, rng=rng, w_std=0.1, v_std=0.1)
    return start, rng.standard_normal(K)


def flat(state: shallow.OrderParameters) -> NDArray[np.float64]:
    return np.concatenate((state.Q.ravel(), state.R.ravel(), state.v))


def beside_euler() -> dict[str, Any]:
    start, F = setting(2)

    def fixed_steps() -> NDArray[np.float64]:
        end: NDArray[np.float64] = euler(flat(start), 500_000, 1e-3, start.T, start.A, F)
        return end

    def adaptive() -> shallow.OrderParameters:
        return shallow.integrate(start, feedback=F, lr=0.1, times=[500.0]).final

    difference = float(np.abs(flat(adaptive()) - fixed_steps()).max())
    euler_s, integrate_s = interleaved(fixed_steps, adaptive, rounds=7)
    return {
        "what": "Euler over integrate, erf, K = M = 2",
        "ratio": round(euler_s / integrate_s, 1),
        "asked": 40,
        "integrate_ms": round(1e3 * integrate_s, 2),
        "euler_ms": round(1e3 * euler_s, 1),
        "end_states_differ_by": float(f"{difference:.2g}"),
    }


def growth(activation: str) -> dict[str, Any]:
    """Time one right-hand side; the exponent is that between the two largest sizes."""
    units = [4, 8, 16, 32]
    times = {4: 512, 8: 64, 16: 8, 32: 1} if activation == "relu" else {4: 8192, 8: 1024, 16: 128, 32: 16}

    def work(n: int) -> Any:
        start, F = setting(n // 2)
        y = flat(start)
        return lambda: evaluate(y, start.T, start.A, F, ACTIVATIONS[activation], times[n])

    seconds = interleaved(*map(work, units), rounds=7, warm_up=1)
    one = {n: 1e6 * total / times[n] for n, total in zip(units, seconds, strict=True)}
    return {
        "what": f"right-hand side, {activation}, microseconds by K + M",
        **{str(n): float(f"{microseconds:.3g}") for n, microseconds in one.items()},
        "exponent_from_16_to_32": round(math.log2(one[32] / one[16]), 2),
    }


def relu_to_1000() -> dict[str, Any]:
    start, F = setting(2)
    (seconds,) = interleaved(
        lambda: shallow.integrate(start, feedback=np.abs(F), lr=0.1, times=[1000.0], activation="relu"), rounds=5
    )
    return {"what": "integrate relu, K = M = 2, to t = 1000, seconds", "seconds": float(f"{seconds:.2g}"), "asked": 5}


def steps(activation: str) -> dict[str, Any]:
    """Time a step of both simulations, and the drawing of inputs."""
    wide = 50_000
    short, long = 10.0, 200.0  # in units of N steps; the reduced one needs more to be timed as well

    def simulate(method: Literal["reduced", "explicit"], input_dim: int, time: float) -> None:
        start, F = setting(2, input_dim)
        shallow.simulate(
            start, feedback=np.abs(F), lr=0.1, times=[time], input_dim=input_dim, method=method, activation=activation,
        )  # fmt: skip

    generator = np.random.default_rng(0)
    reduced_s, wide_s, explicit_s, draws_s = interleaved(
        lambda: simulate("reduced", N, long),
        lambda: simulate("reduced", wide, long * N / wide),
        lambda: simulate("explicit", N, short),
        lambda: draw_inputs(generator, int(short * N), N),
        rounds=41,
    )
    reduced_us, wide_us = (1e6 * seconds / (long * N) for seconds in (reduced_s, wide_s))
    explicit_us, draws_us = (1e6 * seconds / (short * N) for seconds in (explicit_s, draws_s))
    return {
        "what": f"simulation step, {activation}, K = M = 2",
        "reduced_us": round(reduced_us, 3),
        "asked": 0.5,
        "reduced_us_at_N_50000": round(wide_us, 3),
        "explicit_us": round(explicit_us, 3),
        "drawing_us": round(draws_us, 3),
        "explicit_over_drawing": round(explicit_us / draws_us, 2),
        "asked_of_that": 2,
        "explicit_over_reduced": round(explicit_us / reduced_us, 1),
    }


def recovery() -> dict[str, Any]:
    begin = time.perf_counter()
    compute(relu_recovery, relu_recovery.CONFIGS["quick"])
    return {"what": "relu-recovery, quick, seconds", "seconds": round(time.perf_counter() - begin, 1), "asked": 60}


def main() -> None:
    rows = [beside_euler(), *map(growth, ACTIVATIONS), relu_to_1000(), *map(steps, ACTIVATIONS), recovery()]
    save("shallow_theory", rows)


if __name__ == "__main__":
    main()
