"""A training of your own: what `feedalign train` computes, prints and draws.

Loading this room loads no torch: what is wrong in a TOML file is told at once.
"""

from typing import TYPE_CHECKING

import lazy_loader

from feedalign.lab.options import TrainConfig

if TYPE_CHECKING:
    from feedalign.lab.own_training.checking import check_value, purpose, unused
    from feedalign.lab.own_training.job import Run, compute, run_of
    from feedalign.lab.own_training.showing import diverged, summary, table
    from feedalign.lab.own_training.toml import check_key, checked_table, config_of, tables_of

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checking": ["check_value", "purpose", "unused"],
        "job": ["Run", "compute", "run_of"],
        "showing": ["diverged", "summary", "table"],
        "toml": ["check_key", "checked_table", "config_of", "tables_of"],
    },
)

__all__ = [
    "Run",
    "TrainConfig",
    "check_key",
    "check_value",
    "checked_table",
    "compute",
    "config_of",
    "diverged",
    "purpose",
    "run_of",
    "summary",
    "table",
    "tables_of",
    "unused",
]
