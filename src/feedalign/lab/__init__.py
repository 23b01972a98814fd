"""The laboratory: data sets, training, runs, experiments and their report. Nothing in the library imports it."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from feedalign.lab import data, experiments, files, report, runs, training

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__, submodules=["data", "experiments", "files", "report", "runs", "training"]
)

__all__ = ["data", "experiments", "files", "report", "runs", "training"]
