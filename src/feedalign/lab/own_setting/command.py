"""`feedalign theory`: everything but arguments and printing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from feedalign.checks import positive_number
from feedalign.lab.files import check_folder, write_file
from feedalign.lab.options import TheoryConfig
from feedalign.lab.own_setting.drawing import plot
from feedalign.lab.own_setting.running import prepare, run
from feedalign.lab.progress import Watch, unwatched
from feedalign.lab.runs import StoredRun, run_once
from feedalign.style import svg

NAME = "theory"
# An integration of ordinary size takes seconds. With very large numbers the equations are so stiff that it never ends.
MAX_SECONDS = 300.0


def compute(
    config: TheoryConfig,
    runs: Path = Path("runs"),
    progress: Watch = unwatched,
    *,
    max_seconds: float = MAX_SECONDS,
) -> StoredRun:
    """Compute a setting, unless `runs` holds it already, and draw its figure.

    Args:
        config: the setting.
        runs: folder of the runs; made if missing. The run lies in `runs/theory/<hash of the setting>`.
        progress: called with "theory"; returns a context manager that gives a function of (done, total) to be called.
        max_seconds: how long each integration, and the simulation under each rule, may take. This does not decide the
            result, so it is no part of the setting.

    Returns:
        The run; its folder holds figure.svg beside result.nc.

    Raises:
        ArgumentError: a value of the config is out of range, or `runs` cannot be written. Raised before any work.
        DataError: the run cannot be stored or read.
        TimeLimitError: max_seconds were over. Nothing is stored.
    """
    positive_number("max_seconds", max_seconds)
    check_folder("runs", runs)
    prepare(config)
    with progress(NAME) as tell:
        stored = run_once(NAME, config, partial(run, config, tell, max_seconds), runs)
    write_file(stored.folder / "figure.svg", svg(plot(stored.dataset)))
    return stored
