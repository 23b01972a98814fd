"""How an integration ends early: at an error that was asked for, at divergence, or at its time limit."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
import pytest

from feedalign.errors import ArgumentError, DivergenceError, TimeLimitError
from feedalign.theory import shallow

MakeStart = Callable[..., shallow.OrderParameters]
F = np.array([0.7, -1.1])


def test_it_stops_when_the_error_has_sunk_to_what_was_asked(make_start: MakeStart) -> None:
    times = np.array([0.0, 1.0, 10.0, 100.0, 10_000.0])
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.3}
    whole = shallow.integrate(make_start(), times=times, **kwargs)
    stopped = shallow.integrate(make_start(), times=times, stop_at_error=1e-3, **kwargs)
    assert stopped.generalisation_error[-1] == pytest.approx(1e-3, rel=1e-6)
    assert 0 < stopped.times[-1] < times[-1]
    n = len(stopped.times) - 1
    np.testing.assert_array_equal(stopped.times[:-1], times[times < stopped.times[-1]])
    np.testing.assert_allclose(stopped.R[:-1], whole.R[:n], atol=1e-9)
    np.testing.assert_allclose(
        shallow.integrate(make_start(), times=stopped.times[-1:], **kwargs).R[-1], stopped.R[-1], atol=1e-6
    )
    never = shallow.integrate(make_start(), times=times[:2], stop_at_error=1e-30, **kwargs)
    np.testing.assert_array_equal(never.times, times[:2])
    at_once = shallow.integrate(make_start(), times=times, stop_at_error=1e3, **kwargs)
    np.testing.assert_array_equal(at_once.times, [0.0])
    with pytest.raises(ArgumentError, match=r"stop_at_error must be a finite number above 0, got 0.0"):
        shallow.integrate(make_start(), times=times, stop_at_error=0.0, **kwargs)


def test_divergence_says_when_and_keeps_the_last_finite_state() -> None:
    """A linear student with frozen readout explodes for η > 2, where d⟨Q⟩/dt ∝ η² − 2η; both solvers say so."""
    start = shallow.OrderParameters(Q=np.eye(1), R=np.zeros((1, 1)), T=np.eye(1), v=np.array([1.0]), A=np.array([1.0]))
    kwargs: dict[str, Any] = {
        "feedback": [1.0],
        "lr": 5.0,
        "times": [1000.0],
        "activation": "linear",
        "lr_readout": 0.0,
    }
    with pytest.raises(DivergenceError, match=r"the dynamics diverged at t = .*lower lr=5.0") as theory:
        shallow.integrate(start, **kwargs)
    with pytest.raises(DivergenceError, match=r"the simulation diverged at t = .*lower lr=5.0") as simulation:
        shallow.simulate(start, **kwargs, input_dim=30)
    for error in (theory.value, simulation.value):
        assert 0 < error.time < 1000
        assert isinstance(error.state, shallow.OrderParameters)


@pytest.mark.parametrize("method", ["LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF"])
def test_an_endless_integration_stops_at_its_limit_and_can_be_gone_on_with(make_start: MakeStart, method: str) -> None:
    """At η = 10⁵ the equations are so stiff that t = 10⁷ is hours away for every solver."""
    begun = monotonic()
    arguments: dict[str, Any] = {"feedback": F, "lr": 1e5, "method": method}
    with pytest.raises(TimeLimitError, match=r"longer than max_seconds=0.2 and had reached t = .*; lower lr") as stop:
        shallow.integrate(make_start(), times=[1e7], max_seconds=0.2, **arguments)
    assert monotonic() - begun < 60  # the first method compiles
    state, reached = stop.value.state, stop.value.time
    assert isinstance(state, shallow.OrderParameters)
    assert 0 < reached < 1e7
    on = shallow.integrate(make_start(), times=[reached], **arguments).final
    np.testing.assert_allclose(on.v, state.v, rtol=1e-4, atol=1e-6)


def test_a_limit_that_is_not_reached_changes_nothing(make_start: MakeStart) -> None:
    arguments: dict[str, Any] = {"feedback": F, "lr": 0.1, "times": [1.0, 2.0]}
    limited = shallow.integrate(make_start(), max_seconds=1e9, **arguments)
    assert np.array_equal(limited.Q, shallow.integrate(make_start(), **arguments).Q)
