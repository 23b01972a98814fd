"""The site, built strictly as `make docs` builds it, but with tutorials that were not run."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tools.docs import tutorials

import feedalign

ROOT = Path(__file__).parents[2]
Build = Callable[[Path], "subprocess.CompletedProcess[str]"]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PICTURED = ("Start", "Tutorials", "Understanding")
# Pages of the site before it had sections; links to them stand in papers and in other people's code.
OLD = (
    "alignment", "diagnose", "theory", "linear-theory", "convolutions", "experiments", "choosing-a-rule",
    "your-own-model", "recurrent", "compatibility", "compatibility-models", "adding-a-rule", "api",
)  # fmt: skip


class Loaded(HTMLParser):
    """What a browser loads for a page: everything but the links that a reader follows."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a" or (tag == "link" and given.get("rel") in ("canonical", "prev", "next")):
            return
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset", "data") and value]


def pages_of(section: str) -> list[str]:
    """The files of a section of the navigation."""
    (entries,) = [entry[section] for entry in CONFIG["nav"] if section in entry]
    return [entry if isinstance(entry, str) else next(iter(entry.values())) for entry in entries]


def html(site: Path, page: str) -> str:
    folder = page.removesuffix(".md").removesuffix("index")
    return (site / folder / "index.html").read_text(encoding="utf-8")


def test_every_page_stands_in_the_navigation() -> None:
    there = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")}
    there |= {f"tutorials/{tutorials.page_name(script)}.md" for script in tutorials.tutorials()}
    assert there == {page for entry in CONFIG["nav"] for section in entry for page in pages_of(section)}


def test_every_public_name_of_the_library_stands_in_the_reference() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("docs/reference/*.md"))
    named = {name.rsplit(".", 1)[1] for name in re.findall(r"^::: (feedalign\S+)", pages, re.MULTILINE)}
    public = {name for name in feedalign.__all__ if not isinstance(getattr(feedalign, name), ModuleType)}
    assert public - named == {"FeedalignError"}  # the page of errors shows the whole family


@pytest.mark.slow
def test_what_a_page_loads_lies_in_the_site(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [address for address in loaded.addresses if re.match(r"(https?:)?//", address)] == [], page
        files = [address.split("#")[0].split("?")[0] for address in loaded.addresses if not address.startswith("data:")]
        places = [site / file.removeprefix("/") if file.startswith("/") else page.parent / file for file in files]
        assert [place for place in places if not place.exists()] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_every_formula_is_written_out(site: Path) -> None:
    written = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert sum(text.count("<math") for text in written.values()) > 200
    for page, text in written.items():
        assert "arithmatex" not in text, page
        assert not re.search(
            r"\$\$|\\\[|\\\(", re.sub(r"<(pre|code|annotation|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        ), page


@pytest.mark.slow
def test_the_reference_says_everything_on_the_spot(site: Path) -> None:
    """Arguments that another class explains are explained here too, and examples are code."""
    text = html(site, "reference/rules.md")
    assert not re.search(r"see <code>\w+Rule</code>", text)
    assert text.count("recipe of the feedback matrices") == 5  # four rules leave it to DirectRule; and Wrapped
    assert text.count("keep nothing of the forward pass") == 4  # of the direct rules with arguments of their own
    assert "<blockquote" not in text
    assert '<span class="gp">&gt;&gt;&gt;' in text


@pytest.mark.slow
def test_old_addresses_lead_to_pages(site: Path) -> None:
    for name in OLD:
        text = (site / name / "index.html").read_text(encoding="utf-8")
        target = re.search(r'http-equiv="refresh" content="0; ?url=([^"#]+)', text)
        assert target, name
        assert (site / name / target[1] / "index.html").resolve().exists(), target[1]


@pytest.mark.slow
@pytest.mark.parametrize("section", PICTURED)
def test_every_page_of_a_section_has_a_picture(section: str, site: Path) -> None:
    for page in pages_of(section):
        if page.startswith("tutorials/") and page != "tutorials/index.md":
            continue  # its figures are made when it is run; tests/test_examples.py counts them
        assert 'class="fa-picture"' in html(site, page), page


def of_one_page(text: str, folder: Path) -> Path:
    """Make a folder from which a site of one page is built, with the settings of the whole site."""
    redirects, *plugins = (plugin for plugin in CONFIG["plugins"] if plugin != "search")
    assert "redirects" in redirects
    for name in ("results", "tools"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs" / "stylesheets", folder / "docs" / "stylesheets")
    (folder / "docs" / "index.md").write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    (folder / "mkdocs.yml").write_text(yaml.safe_dump({**CONFIG, "nav": ["index.md"], "plugins": plugins}))
    return folder


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("[a](nowhere.md)", "page does not exist"),
        ("[a](index.md#nowhere)", "anchor"),
        ("$\\frac{1$", "cannot be written as MathML"),
        ("<!-- results: nothing -->", "a page asks for the result 'nothing'"),
    ],
)
def test_a_fault_in_a_page_ends_the_build(broken: str, says: str, build: Build, tmp_path: Path) -> None:
    done = build(of_one_page(broken, tmp_path))
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


def test_a_page_without_a_fault_is_built(build: Build, tmp_path: Path) -> None:
    """The control of the test above."""
    done = build(of_one_page("[a](index.md), $\\frac{1}{2}$", tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
