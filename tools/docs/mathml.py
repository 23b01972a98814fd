"""Markdown extension: formulas become MathML while the pages are built, so that a reader's browser loads nothing."""

from __future__ import annotations

import html
import re
from typing import Any

from markdown import Extension, Markdown
from markdown.postprocessors import Postprocessor
from math_core import LatexError, LatexToMathML

# What pymdownx.arithmatex makes of $...$ and $$...$$ with `generic: true`.
_FORMULA = re.compile(
    r'<span class="arithmatex">\\\((?P<inline>.*?)\\\)</span>'
    r'|<div class="arithmatex">\s*\\\[(?P<display>.*?)\\\]\s*</div>',
    re.DOTALL,
)


class MathMLExtension(Extension):
    """Replace what arithmatex has marked, after everything else."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Markdown's own name)
        """Register the last step of a page."""
        md.postprocessors.register(_Formulas(md), "mathml", -10)


class _Formulas(Postprocessor):
    """Write every formula as MathML."""

    def __init__(self, md: Markdown) -> None:
        super().__init__(md)
        self._converter = LatexToMathML(fancy_error=False)

    def run(self, text: str) -> str:
        return _FORMULA.sub(self._mathml, text)

    def _mathml(self, found: re.Match[str]) -> str:
        display = found["display"] is not None
        formula = html.unescape(found["display"] if display else found["inline"]).strip()
        try:
            mathml = self._converter.convert_with_local_state(formula, displaystyle=display)
        except LatexError as error:
            raise ValueError(f"the formula {formula!r} cannot be written as MathML: {error}") from error
        return f'<div class="formula">{mathml}</div>' if display else mathml


def makeExtension(**settings: Any) -> MathMLExtension:  # noqa: N802 (Markdown's own name)
    """Return the extension, for Markdown."""
    return MathMLExtension(**settings)
