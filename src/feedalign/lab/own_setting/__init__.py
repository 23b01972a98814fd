"""A setting of your own of the shallow theory: what `feedalign theory` computes, prints and draws.

Loading this room loads no theory: the command line reads `TheoryConfig` before it knows what to do.
"""

from typing import TYPE_CHECKING

import lazy_loader

from feedalign.lab.own_setting.config import TheoryConfig

if TYPE_CHECKING:
    from feedalign.lab.own_setting.command import compute
    from feedalign.lab.own_setting.drawing import plot
    from feedalign.lab.own_setting.running import prepare, run
    from feedalign.lab.own_setting.words import diverged, summary, table

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["compute"],
        "drawing": ["plot"],
        "running": ["prepare", "run"],
        "words": ["diverged", "summary", "table"],
    },
)

__all__ = ["TheoryConfig", "compute", "diverged", "plot", "prepare", "run", "summary", "table"]
