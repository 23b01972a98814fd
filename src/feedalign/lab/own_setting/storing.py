"""Compute a setting of the shallow theory once, and keep result and figure in its run folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from feedalign.lab.experiments import Watch, unwatched
from feedalign.lab.files import check_folder, replacing
from feedalign.lab.own_setting.config import TheoryConfig
from feedalign.lab.own_setting.drawing import plot
from feedalign.lab.own_setting.running import prepare, run
from feedalign.lab.runs import StoredRun, run_once
from feedalign.style import svg

NAME = "theory"


def compute(config: TheoryConfig, runs: Path = Path("runs"), progress: Watch = unwatched) -> StoredRun:
    """Compute a setting, unless `runs` holds it already, and draw its figure.

    Args:
        config: the setting.
        runs: folder of the runs; made if missing. The run lies in `runs/theory/<hash of the setting>`.
        progress: called with "theory", returns a context manager that is entered while the setting is computed; what
            the context manager gives is called with (done, total).

    Returns:
        The run; its folder holds figure.svg beside result.nc.

    Raises:
        ArgumentError: a value of the config is out of range, or `runs` cannot be written. Raised before any work.
        DataError: the run cannot be stored or read.
    """
    check_folder("runs", runs)
    prepare(config)
    with progress(NAME) as tell:
        stored = run_once(NAME, config, partial(run, config, tell), runs)
    with replacing(stored.folder / "figure.svg") as aside:
        aside.write_bytes(svg(plot(stored.dataset)))
    return stored
