"""Let the API page typeset the `.. math::` blocks of docstrings, which Markdown by itself does not know."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

from griffe import Extension, Object

# The directive, then what follows on its line and on indented lines; a blank line between those parts two formulas.
_BLOCK = re.compile(
    r"^([ \t]*)\.\. math::(?P<first>.*)\n?(?P<rest>(?:\1[ \t]+\S.*(?:\n|\Z)|[ \t]*\n(?=\1[ \t]+\S))*)", re.M
)


class MathDirective(Extension):
    """Rewrite `.. math::` to the $$ that arithmatex reads."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _BLOCK.sub(_typeset, obj.docstring.value)


def _typeset(block: re.Match[str]) -> str:
    formulas = re.split(r"\n\s*\n", f"{block['first'].strip()}\n{dedent(block['rest'])}".strip())
    aligned = [f"\\begin{{aligned}}{formula}\\end{{aligned}}" if "&" in formula else formula for formula in formulas]
    return "\n" + "\n\n".join(f"$$\n{formula}\n$$" for formula in aligned) + "\n\n"
