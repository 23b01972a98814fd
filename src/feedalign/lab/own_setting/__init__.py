"""A setting of your own of the shallow theory: what `feedalign theory` computes, prints and draws."""

from feedalign.lab.options import TheoryConfig
from feedalign.lab.own_setting.command import compute
from feedalign.lab.own_setting.drawing import plot
from feedalign.lab.own_setting.running import prepare, run
from feedalign.lab.own_setting.words import diverged, summary, table

__all__ = ["TheoryConfig", "compute", "diverged", "plot", "prepare", "run", "summary", "table"]
