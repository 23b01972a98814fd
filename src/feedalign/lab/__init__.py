"""The laboratory: data sets, training, runs, experiments and their report. Nothing in the library imports it."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from feedalign.lab import (
        changes,
        data,
        diagnose_command,
        experiments,
        explore,
        files,
        own_setting,
        own_training,
        report,
        runs,
        sweep,
        training,
    )
    from feedalign.lab.reproduction import Reproduction, reproduce

__all__ = [
    "Reproduction",
    "changes",
    "data",
    "diagnose_command",
    "experiments",
    "explore",
    "files",
    "own_setting",
    "own_training",
    "report",
    "reproduce",
    "runs",
    "sweep",
    "training",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules={*__all__} - {"Reproduction", "reproduce"},
    submod_attrs={"reproduction": ["Reproduction", "reproduce"]},
)
