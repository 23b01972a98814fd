"""What `feedalign theory` can be asked; apart from what computes it, so that help and usage errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TheoryConfig:
    """A teacher, a student, and how it learns.

    Attributes:
        activation: of student and teacher.
        students: K, hidden units of the student.
        teachers: M, hidden units of the teacher.
        rules: what to learn with; both have the same start and the same inputs.
        lr: η, learning rate of the first layer.
        lr_readout: learning rate of the second layer; lr unless given, 0 freezes it.
        noise_std: σ of the label noise.
        batch_size: inputs a step averages its update over.
        readout: second layer of the teacher, by kind (random: Gaussian; uniform: all one; alternating: ±1) or as M
            numbers.
        feedback: F, by kind (random: Gaussian; positive: its absolute value; initial: the student's first v;
            orthogonal: to the teacher's readout) or as K numbers.
        w_std: standard deviation of the student's initial first layer.
        v_std: standard deviation of the student's initial second layer.
        input_dim: N of the random first layers learning starts from, and of the simulation.
        end_time: in steps / N.
        measurements: number of times, log-spaced, besides time 0.
        stop_at_error: let theory stop when the generalisation error has sunk to this.
        simulate: seeds of the simulation at finite N beside the theory of infinite N; 0 for theory alone.
        seed: of teacher, start and feedback.
        method: solver of scipy.integrate.solve_ivp.
        rtol: its relative tolerance.
        atol: its absolute tolerance.
    """

    activation: Literal["erf", "relu", "linear"] = "erf"
    students: int = 2
    teachers: int = 2
    rules: tuple[Literal["dfa", "bp"], ...] = ("dfa", "bp")
    lr: float = 0.1
    lr_readout: float | None = None
    noise_std: float = 0.0
    batch_size: int = 1
    readout: Literal["random", "uniform", "alternating"] | tuple[float, ...] = "uniform"
    feedback: Literal["random", "positive", "initial", "orthogonal"] | tuple[float, ...] = "random"
    w_std: float = 0.01
    v_std: float = 0.01
    input_dim: int = 500
    end_time: float = 1000.0
    measurements: int = 40
    stop_at_error: float | None = None
    simulate: int = 0
    seed: int = 0
    method: Literal["LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF"] = "LSODA"
    rtol: float = 1e-8
    atol: float = 1e-10
