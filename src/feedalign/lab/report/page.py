"""The report: one self-contained page with every claim, figure and verdict, and the command that repeats each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from feedalign.lab.experiments import LEVEL, holm
from feedalign.lab.files import write_file
from feedalign.lab.report.links import documentation, embedded, relative, table
from feedalign.lab.report.sections import ORDER, Result, section
from feedalign.lab.robustness import Robustness
from feedalign.style import svg


def write_report(results: Sequence[Result], path: Path, robustness: Sequence[Robustness] = ()) -> None:
    """Write the page to `path`, with all figures inside; also write each figure beside its run, as figure.svg.

    The page begins with a list of all verdicts. Claims that failed come first, in the list and below the list. The page
    loads nothing: it links to the files of the runs, and to the documentation where a checkout has one.

    Args:
        results: what the page shows.
        path: of the page.
        robustness: rows of a table of seed robustness; those of runs that are not on the page are passed over.

    Raises:
        OSError: the page or a figure cannot be written; `path` is then as it was before.
    """
    corrected = holm([verdict for result in results for verdict in result.verdicts])
    values = iter(corrected)
    sections = [section(result, values, robustness, _figure(result)) for result in results]
    sections.sort(key=lambda each: ORDER.index(each.result.word))  # of equal words, the order of `results`
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("feedalign.lab.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = templates.get_template("page.html.j2").render(
        sections=sections,
        supported=sum(result.supported for result in results),
        parts=len(corrected),
        corrected=sum(p < LEVEL for p in corrected),
        docs=lambda name: documentation(name, path),
        link=lambda target: relative(target, path),
        table=table,
    )
    # The name of a folder may hold bytes that are no characters, which UTF-8 cannot write.
    write_file(path, page.encode("utf-8", errors="backslashreplace"))


def _figure(result: Result) -> str:
    """Draw a result's figure into the folder of its run, and return the figure inside an address."""
    picture = svg(result.experiment.plot(result.run.dataset))
    write_file(result.run.folder / "figure.svg", picture)
    return embedded(picture, "image/svg+xml")
