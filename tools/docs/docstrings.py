"""Let the reference show what docstrings say: formulas, examples, and arguments that another class explains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

from griffe import DocstringSectionParameters, Extension, Object

# The directive, then what follows on its line and on indented lines; a blank line between those parts two formulas.
_BLOCK = re.compile(
    r"^([ \t]*)\.\. math::(?P<first>.*)\n?(?P<rest>(?:\1[ \t]+\S.*(?:\n|\Z)|[ \t]*\n(?=\1[ \t]+\S))*)", re.M
)
# An example, as the tests of docstrings run it, up to the next empty line.
_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.M)
# An argument that another class of the package explains.
_SEE = re.compile(r"^(?P<indent>[ \t]+)(?P<name>\w+): (?:[\w ]+, )?see `(?P<other>\w+)`(?P<more>[.;].*)$", re.M)


class Docstrings(Extension):
    """Rewrite docstrings to what Markdown reads."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite formulas and examples of one module, class, function or attribute."""
        if obj.docstring is not None:
            text = _BLOCK.sub(_typeset, obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```", text)

    def on_package(self, *, pkg: Object, **_: Any) -> None:
        """Put in the place of "see `DirectRule`" what that class says of the argument."""
        classes = list(_classes(pkg))
        explained = {each.name: _parameters(each) for each in classes}
        for each in classes:
            if each.docstring is not None:
                each.docstring.value = _SEE.sub(lambda found: _explain(found, explained), each.docstring.value)


def _classes(room: Any) -> Iterator[Any]:
    """Yield every class below a package or module."""
    for member in room.members.values():
        if member.is_alias:
            continue
        if member.is_class:
            yield member
        elif member.is_module:
            yield from _classes(member)


def _parameters(each: Any) -> dict[str, str]:
    """Return what a class says of its arguments, by name."""
    if each.docstring is None:
        return {}
    sections = each.docstring.parse("google", warnings=False)
    return {
        parameter.name: parameter.description
        for section in sections
        if isinstance(section, DocstringSectionParameters)
        for parameter in section.value
    }


def _explain(found: re.Match[str], explained: dict[str, dict[str, str]]) -> str:
    description = explained.get(found["other"], {}).get(found["name"])
    if description is None:
        return found[0]
    lines = f"{found['name']}: {description.removesuffix('.')}{found['more']}".splitlines()
    return "\n".join([found["indent"] + lines[0], *(f"{found['indent']}    {line.strip()}" for line in lines[1:])])


def _typeset(block: re.Match[str]) -> str:
    formulas = re.split(r"\n\s*\n", f"{block['first'].strip()}\n{dedent(block['rest'])}".strip())
    aligned = [f"\\begin{{aligned}}{formula}\\end{{aligned}}" if "&" in formula else formula for formula in formulas]
    return "\n" + "\n\n".join(f"$$\n{formula}\n$$" for formula in aligned) + "\n\n"
