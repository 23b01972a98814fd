"""Sweeps: a grid of one's own trainings beside their controls, as `feedalign sweep` computes, prints and draws it."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from feedalign.lab.sweep.grid import Point, SweepConfig, points_of, sweep_of
    from feedalign.lab.sweep.running import compute
    from feedalign.lab.sweep.showing import diverged, summary, table

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "grid": ["Point", "SweepConfig", "points_of", "sweep_of"],
        "running": ["compute"],
        "showing": ["diverged", "summary", "table"],
    },
)

__all__ = ["Point", "SweepConfig", "compute", "diverged", "points_of", "summary", "sweep_of", "table"]
