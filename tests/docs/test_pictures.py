"""The pictures of the idea: drawn by scripts, the same in the repository and on the page, readable in both schemes."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown import markdown
from tools.pictures.__main__ import FIGURES, PICTURES
from tools.pictures.canvas import COLOURS

ROOT = Path(__file__).parents[2]
_NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_the_committed_picture_is_what_its_script_draws(name: str) -> None:
    """Up to a pixel: curves are integrated, and another machine rounds otherwise."""
    drawn, committed = PICTURES[name]().svg(), (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    assert _NUMBER.sub("#", drawn) == _NUMBER.sub("#", committed), "run python -m tools.pictures"
    ours, theirs = (np.array(_NUMBER.findall(text), dtype=float) for text in (drawn, committed))
    np.testing.assert_allclose(ours, theirs, atol=1.0)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_a_title_known_colours_and_stays_on_its_canvas(name: str) -> None:
    text = (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.get("aria-label")
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(COLOURS)
    width, height = (float(number) for number in root.attrib["viewBox"].split()[2:])
    for shape in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(shape.attrib["x"]) <= width
        assert 0 <= float(shape.attrib["y"]) <= height


@pytest.mark.parametrize(("scheme", "which"), [("default", 0), ("slate", 1)])
def test_the_page_gives_every_colour_the_value_of_its_scheme(scheme: str, which: int) -> None:
    sheet = (ROOT / "docs/stylesheets/feedalign.css").read_text(encoding="utf-8")
    (rule,) = re.findall(rf'\[data-md-color-scheme="{scheme}"\] \.fa-picture \{{(.*?)\}}', sheet, re.DOTALL)
    given = dict(re.findall(r"--(\w+): (#\w+);", rule))
    assert given == {name: values[which] for name, values in COLOURS.items()}


def test_a_picture_becomes_part_of_the_page_and_other_images_stay() -> None:
    extensions = ["attr_list", "tools.docs.pictures"]
    html = markdown("![three rules](../figures/three-rules.svg){.picture}\n\n![a](b.png)", extensions=extensions)
    assert 'class="fa-picture"' in html
    assert html.count("<img") == 1
