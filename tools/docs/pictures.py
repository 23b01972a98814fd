"""Markdown extension: a picture of class "picture" becomes part of the page, so that it follows the page's colours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.postprocessors import Postprocessor

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
_IMAGE = re.compile(r'<img(?=[^>]* class="picture")[^>]* src="[^"]*?([\w-]+)\.svg"[^>]*>')


class PicturesExtension(Extension):
    """Replace images after everything else; on other sites the same page shows the same file as an image."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Markdown's own name)
        """Register one of the last steps of a page."""
        md.postprocessors.register(_Pictures(md), "pictures", -20)


class _Pictures(Postprocessor):
    def run(self, text: str) -> str:
        """Replace the images. The search leaves out the words of a picture, which make no sentence."""
        return _IMAGE.sub(lambda found: f'<span class="picture" data-search-exclude>{_drawing(found[1])}</span>', text)


def _drawing(name: str) -> str:
    """Return a picture on one line, since Markdown has no more say in it."""
    return (FIGURES / f"{name}.svg").read_text(encoding="utf-8").replace("\n", "")


def makeExtension(**settings: Any) -> PicturesExtension:  # noqa: N802 (Markdown's own name)
    """Return the extension, for Markdown."""
    return PicturesExtension(**settings)
