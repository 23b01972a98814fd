"""Whether a network will align, and why: what `feedalign diagnose` does. It claims nothing."""

from feedalign.lab.experiments.diagnosis.drawing import plot
from feedalign.lab.experiments.diagnosis.running import run
from feedalign.lab.experiments.diagnosis.setting import Setting, prepared
from feedalign.lab.experiments.diagnosis.words import before, diverged, notes, table, verdict

__all__ = ["NAME", "Setting", "before", "diverged", "notes", "plot", "prepared", "run", "table", "verdict"]

NAME = "diagnose"
