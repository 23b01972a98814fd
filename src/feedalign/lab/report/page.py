"""The report: one self-contained page that says what was claimed, shown and measured, and how to do it again."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from feedalign.lab.experiments import Experiment, Verdict
from feedalign.lab.files import replacing
from feedalign.lab.runs import Run


@dataclass(frozen=True)
class Result:
    """One experiment as the report shows it.

    Attributes:
        experiment: the module.
        run: its finished run.
        verdicts: what its check says.
        command: what to type to get this very result.
    """

    experiment: Experiment
    run: Run
    verdicts: list[Verdict]
    command: str

    @property
    def supported(self) -> bool:
        """Whether every part of the claim is."""
        return all(verdict.supported for verdict in self.verdicts)


def write_report(results: Sequence[Result], path: Path) -> None:
    """Write the page to `path`, whole or not at all, figures embedded; save each figure beside its run too."""
    figures = []
    for result in results:
        figure = result.experiment.plot(result.run.dataset)
        svg = _svg(figure)
        with replacing(result.run.folder / "figure.svg") as aside:
            aside.write_bytes(svg)
        figures.append("data:image/svg+xml;base64," + base64.b64encode(svg).decode())
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("feedalign.lab.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = templates.get_template("page.html.j2").render(
        results=list(zip(results, figures, strict=True)),
        supported=sum(result.supported for result in results),
    )
    with replacing(path) as aside:
        aside.write_text(page, encoding="utf-8")


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without a date and with a salt of our own, read when it is saved, the same data give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "feedalign", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
