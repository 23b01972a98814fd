"""The report: one self-contained page with every claim, figure and verdict, and the command that repeats each."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from feedalign.lab.experiments import Experiment, Verdict
from feedalign.lab.files import replacing
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


def write_report(results: Sequence[Result], path: Path) -> None:
    """Write the page to `path`, with all figures inside; also write each figure beside its run, as figure.svg.

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
    page = templates.get_template("page.html.j2").render(
        results=list(zip(results, figures, strict=True)),
        supported=sum(result.supported for result in results),
    )
    with replacing(path) as aside:
        # The name of a folder may hold bytes that are no characters, which UTF-8 cannot write.
        aside.write_text(page, encoding="utf-8", errors="backslashreplace")
