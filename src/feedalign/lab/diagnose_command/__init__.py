"""The command `feedalign diagnose`: data sets and models named on the command line, and its run folders."""

from typing import TYPE_CHECKING

import lazy_loader

from feedalign.lab.diagnose_command.config import DiagnoseConfig

if TYPE_CHECKING:
    from feedalign.lab.diagnose_command.command import compute

__all__ = ["DiagnoseConfig", "compute"]

# The command line reads the config before it knows whether anything will be computed.
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"command": ["compute"]})
