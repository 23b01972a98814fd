"""The report: one self-contained page with every claim, figure and verdict, and the command that repeats each."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from feedalign.lab.experiments import LEVEL, Experiment, Verdict, holm
from feedalign.lab.files import replacing
from feedalign.lab.robustness import Robustness
from feedalign.lab.runs import StoredRun
from feedalign.style import svg


@dataclass(frozen=True)
class Result:
    """One experiment as the report shows it.

    Attributes:
        experiment: the experiment's module.
        run: the stored run.
        verdicts: what the experiment's check says of the run, one verdict for each part of the claim.
        command: the command line that gives this result again.
    """

    experiment: Experiment
    run: StoredRun
    verdicts: list[Verdict]
    command: str

    @property
    def supported(self) -> bool:
        """Whether every part of the claim is supported."""
        return all(verdict.supported for verdict in self.verdicts)


def write_report(results: Sequence[Result], path: Path, robustness: Sequence[Robustness] = ()) -> None:
    """Write the page to `path`, with all figures inside; also write each figure beside its run, as figure.svg.

    Args:
        results: what the page shows.
        path: of the page.
        robustness: rows of a table of seed robustness; those of runs that are not on the page are passed over.

    Raises:
        OSError: the page or a figure cannot be written; `path` is then as it was before.
    """
    figures = []
    for result in results:
        picture = svg(result.experiment.plot(result.run.dataset))
        with replacing(result.run.folder / "figure.svg") as aside:
            aside.write_bytes(picture)
        figures.append("data:image/svg+xml;base64," + base64.b64encode(picture).decode())
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("feedalign.lab.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    corrected = holm([verdict for result in results for verdict in result.verdicts])
    values = iter(corrected)
    rows = [[(verdict, next(values)) for verdict in result.verdicts] for result in results]
    robust = [_beside(result, robustness) for result in results]
    page = templates.get_template("page.html.j2").render(
        results=list(zip(results, figures, rows, robust, strict=True)),
        supported=sum(result.supported for result in results),
        parts=len(corrected),
        corrected=sum(p < LEVEL for p in corrected),
    )
    with replacing(path) as aside:
        # The name of a folder may hold bytes that are no characters, which UTF-8 cannot write.
        aside.write_text(page, encoding="utf-8", errors="backslashreplace")


def _beside(result: Result, robustness: Sequence[Robustness]) -> list[str]:
    """Return the count of base seeds for each verdict of a result, in words; none if the table has no such run."""
    rows = {row.part: row.words for row in robustness if row.config_hash == result.run.config_hash}
    return [rows.get(part, "") for part in range(1, len(result.verdicts) + 1)] if rows else []
