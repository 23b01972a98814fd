"""How fast are the equations and the simulation of the shallow theory?

Three ratios, each from interleaved runs in one process: a compiled Euler method with the step 1/1000 beside
`integrate`, on the same right-hand side up to t = 500 (and how far apart they end); the explicit simulation beside the
reduced one at N = 500; the explicit one beside the bare cost of drawing its inputs.

Run: python benchmarks/shallow_theory.py
"""

from __future__ import annotations

import numpy as np
from _timing import interleaved, save
from numba import njit
from numpy.typing import NDArray

from feedalign.theory import shallow
from feedalign.theory.shallow.ode import drift

K = M = 2
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


def main() -> None:
    rng = np.random.default_rng(0)
    start = shallow.OrderParameters.from_weights(
        w=0.1 * rng.standard_normal((K, N)),
        w_teacher=rng.standard_normal((M, N)),
        v=0.1 * rng.standard_normal(K),
        A=rng.standard_normal(M),
    )
    F = rng.standard_normal(K)
    y = np.concatenate((start.Q.ravel(), start.R.ravel(), start.v))

    def fixed_steps() -> NDArray[np.float64]:
        end: NDArray[np.float64] = euler(y, 500_000, 1e-3, start.T, start.A, F)
        return end

    def adaptive() -> shallow.OrderParameters:
        return shallow.integrate(start, feedback=F, lr=0.1, times=[500.0]).final

    end = adaptive()
    difference = float(np.abs(np.concatenate((end.Q.ravel(), end.R.ravel(), end.v)) - fixed_steps()).max())
    euler_s, integrate_s = interleaved(fixed_steps, adaptive, rounds=7)

    def simulate(method: str, time: float) -> None:
        shallow.simulate(start, feedback=F, lr=0.1, times=[time], input_dim=N, method=method)  # type: ignore[arg-type]

    generator = np.random.default_rng(0)
    short, long = 10.0, 200.0  # in units of N steps; the reduced one needs more to be timed as well
    reduced_s, explicit_s, draws_s = interleaved(
        lambda: simulate("reduced", long),
        lambda: simulate("explicit", short),
        lambda: draw_inputs(generator, int(short * N), N),
        rounds=41,
    )
    reduced_us = 1e6 * reduced_s / (long * N)
    explicit_us, draws_us = (1e6 * seconds / (short * N) for seconds in (explicit_s, draws_s))
    rows = [
        {
            "what": "Euler over integrate",
            "ratio": round(euler_s / integrate_s, 1),
            "asked": 40,
            "integrate_ms": round(1e3 * integrate_s, 2),
            "euler_ms": round(1e3 * euler_s, 1),
            "end_states_differ_by": float(f"{difference:.2g}"),
        },
        {
            "what": "explicit over reduced step",
            "ratio": round(explicit_us / reduced_us, 1),
            "asked": 20,
            "reduced_us": round(reduced_us, 3),
            "explicit_us": round(explicit_us, 3),
        },
        {
            "what": "explicit step over drawing its inputs",
            "ratio": round(explicit_us / draws_us, 2),
            "drawing_us": round(draws_us, 3),
        },
    ]
    save("shallow_theory", rows)


if __name__ == "__main__":
    main()
