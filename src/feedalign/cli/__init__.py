"""The command line: `feedalign reproduce`, `train`, `sweep`, `diagnose`, `theory`, `list`, `runs` and `data fetch`.

Exit status: 0 done, and every claim that was checked is supported; 1 a claim is not supported, or a run diverged or
took longer than allowed; 2 the command was used wrongly; 3 something outside failed (data, disk); 130 interrupted; 141
the reader of the output has gone (`feedalign list | head -1`): the work was finished and its files were written, but
not everything was printed.
"""

from feedalign.cli.entry import main

__all__ = ["main"]
