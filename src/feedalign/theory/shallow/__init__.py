"""Shallow teacher-student networks learning online: order parameters, their exact dynamics, and simulation.

Conventions: local fields λ_k = w_k·x/√N; time = steps / input_dim; ε_g carries the ½; g(x) = erf(x/√2) for "erf".
"""

from feedalign.extras import needs

with needs("theory", __name__):
    from feedalign.theory.shallow.drawing import FeedbackKind, ReadoutKind, draw_feedback, draw_readout, draw_start
    from feedalign.theory.shallow.order_parameters import OrderParameters
    from feedalign.theory.shallow.selection import predicted_minimum
    from feedalign.theory.shallow.simulate import simulate
    from feedalign.theory.shallow.solutions import (
        Minimum,
        can_recover,
        distances_to_minima,
        global_minima,
        nearest_minimum,
        recovery_probability,
        selected_solution,
    )
    from feedalign.theory.shallow.solving import integrate
    from feedalign.theory.shallow.trajectory import Trajectory

__all__ = [
    "FeedbackKind",
    "Minimum",
    "OrderParameters",
    "ReadoutKind",
    "Trajectory",
    "can_recover",
    "distances_to_minima",
    "draw_feedback",
    "draw_readout",
    "draw_start",
    "global_minima",
    "integrate",
    "nearest_minimum",
    "predicted_minimum",
    "recovery_probability",
    "selected_solution",
    "simulate",
]
