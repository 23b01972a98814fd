"""Make what the site needs and the repository does not hold: pages of the tutorials, and the results' figures in docs/.

    python -m tools.docs.prepare

`make docs` calls this before it builds the site.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.docs import tutorials
from tools.docs.committed_results import RESULTS

FIGURES = Path(__file__).parents[2] / "docs" / "figures" / "results"


def copy_figures(source: Path = RESULTS, target: Path = FIGURES) -> None:
    """Copy the figure of every committed result; the generator takes images from docs/ only."""
    shutil.rmtree(target, ignore_errors=True)
    for figure in source.rglob("*.svg"):
        copy = target / figure.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(figure, copy)


if __name__ == "__main__":
    copy_figures()
    tutorials.write_pages()
