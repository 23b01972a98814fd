"""A setting of your own of the shallow theory: what `feedalign theory` computes, prints and draws."""

from feedalign.lab.options import TheoryConfig
from feedalign.lab.own_setting.running import compute, prepare, run
from feedalign.lab.own_setting.showing import diverged, plot, summary, table

__all__ = ["TheoryConfig", "compute", "diverged", "plot", "prepare", "run", "summary", "table"]
