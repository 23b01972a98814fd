"""Let the reference show what docstrings say: formulas, examples, and arguments that another class explains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
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
_SEE = re.compile(r"^(?P<indent>[ \t]+)(?P<name>\w+): see `(?P<other>\w+)`(?P<more>[.;].*)$", re.M)
# The arguments of a class that leaves its other arguments to another class.
_OTHERS = re.compile(r"^The other arguments are those of `(?P<other>\w+)`\.\n\nArgs:\n(?:[ \t]+\S.*(?:\n|\Z))+", re.M)


class Docstrings(Extension):
    """Rewrite docstrings to what Markdown reads."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite formulas and examples of one module, class, function or attribute."""
        if obj.docstring is not None:
            text = _BLOCK.sub(_typeset, obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```", text)

    def on_package(self, *, pkg: Object, **_: Any) -> None:
        """Put in what another class says of arguments, for "see `DirectRule`" and for arguments that are left to it."""
        classes = [each for each in _classes(pkg) if each.docstring is not None]
        for pattern, put in ((_SEE, _explain), (_OTHERS, _complete)):
            explained = {each.name: _parameters(each) for each in classes}
            for each in classes:
                each.docstring.value = pattern.sub(partial(put, each, explained), each.docstring.value)


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
    sections = each.docstring.parse("google", warnings=False)
    return {
        parameter.name: parameter.description
        for section in sections
        if isinstance(section, DocstringSectionParameters)
        for parameter in section.value
    }


def _explain(_class: Any, explained: dict[str, dict[str, str]], found: re.Match[str]) -> str:
    description = explained.get(found["other"], {}).get(found["name"])
    if description is None:
        return found[0]
    return _argument(found["name"], f"{description.removesuffix('.')}{found['more']}", found["indent"])


def _complete(each: Any, explained: dict[str, dict[str, str]], found: re.Match[str]) -> str:
    """Return what a class and the other class say of the arguments, in the order of the signature."""
    every = explained[found["other"]] | explained[each.name]
    names = [parameter.name for parameter in each.parameters if parameter.name in every]
    return "\n".join(["Args:", *(_argument(name, every[name], "    ") for name in names), ""])


def _argument(name: str, description: str, indent: str) -> str:
    first, *more = f"{name}: {description}".splitlines()
    return "\n".join([indent + first, *(f"{indent}    {line.strip()}" for line in more)])


def _typeset(block: re.Match[str]) -> str:
    formulas = re.split(r"\n\s*\n", f"{block['first'].strip()}\n{dedent(block['rest'])}".strip())
    aligned = [f"\\begin{{aligned}}{formula}\\end{{aligned}}" if "&" in formula else formula for formula in formulas]
    return "\n" + "\n\n".join(f"$$\n{formula}\n$$" for formula in aligned) + "\n\n"
