"""The command `feedalign diagnose`: data sets and models named on the command line, and its run folders."""

from feedalign.lab.diagnose_command.command import compute
from feedalign.lab.options import DiagnoseConfig

__all__ = ["DiagnoseConfig", "compute"]
