"""The options of `feedalign theory`, apart from the code that computes, so that help and usage errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TheoryConfig:
    """A teacher, a student, and how it learns.

    Attributes:
        activation: activation function of student and teacher.
        students: K, hidden units of the student.
        teachers: M, hidden units of the teacher.
        rules: learning rules; all rules have the same start and the same inputs.
        lr: η, learning rate of the first layer.
        lr_readout: η_v, learning rate of the second layer; equal to lr unless given; 0 freezes the layer.
        noise_std: σ of the label noise.
        batch_size: inputs over which a step averages its update.
        readout: second layer of the teacher, by kind (random: Gaussian; uniform: all one; alternating: ±1) or as M
            numbers.
        feedback: F, by kind (random: Gaussian; positive: its absolute value; initial: the student's first v;
            orthogonal: to the teacher's readout) or as K numbers.
        w_std: standard deviation of the student's initial first layer.
        v_std: standard deviation of the student's initial second layer.
        input_dim: N, the number of inputs of the initial random first layers and of the simulation.
        end_time: when learning ends, in steps / N.
        measurements: number of measured times besides time 0, evenly spaced in log time.
        stop_at_error: the integration of the theory stops when the generalisation error has fallen to this value.
        simulate: number of simulated runs at finite N, beside the theory of infinite N; 0 for theory alone.
        seed: seed of teacher, start, feedback and simulated runs.
        method: solver, one of scipy.integrate.solve_ivp's.
        rtol: the solver's relative tolerance.
        atol: the solver's absolute tolerance.
    """

    activation: Literal["erf", "relu", "linear"] = "erf"
    students: int = 2
    teachers: int = 2
    rules: tuple[Literal["dfa", "backprop"], ...] = ("dfa", "backprop")
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
