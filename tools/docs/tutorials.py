"""Run the tutorials in `examples/` and write each as a page, a notebook and a script into `docs/tutorials/`.

A tutorial is a plain Python script whose comments `# %% [markdown]` hold the text. jupytext reads the script as a
notebook, Jupyter runs the notebook, and nbconvert writes the page. So what is read is what ran.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode, v4, write

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGES = ROOT / "docs" / "tutorials"
# Sharp figures at every zoom; the cell that says so stands on no page.
_SETUP = "%config InlineBackend.figure_formats = ['svg']"
_DOWNLOADS = """
!!! note "Run it yourself"

    Download this page as a [notebook]({name}.ipynb) or as a [script]({name}.py), or run `python examples/{script}` in a
    checkout. All output below was computed when this page was built.
"""


def tutorials() -> list[Path]:
    """Return the scripts that are tutorials: those that begin with text."""
    return [path for path in sorted(EXAMPLES.glob("*.py")) if path.read_text(encoding="utf-8").startswith("# %% [mark")]


def page_name(script: Path) -> str:
    """Return the name of a tutorial's page, as its address has it."""
    return script.stem.replace("_", "-")


def executed(script: Path) -> NotebookNode:
    """Return a script as a notebook with its output; an error in the script is an error here."""
    notebook: NotebookNode = jupytext.read(script)
    notebook.cells.insert(0, v4.new_code_cell(_SETUP))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}).execute()
    notebook.cells.pop(0)
    return notebook


def write_page(script: Path, notebook: NotebookNode, folder: Path = PAGES) -> None:
    """Write a tutorial's page with its figures, its notebook without output, and its script.

    Args:
        script: the tutorial.
        notebook: the script as a notebook, `executed` or not.
        folder: where the files go.
    """
    name = page_name(script)
    resources = {"unique_key": name, "output_files_dir": f"{name}-figures"}
    text, found = MarkdownExporter().from_notebook_node(notebook, resources)
    (folder / f"{name}-figures").mkdir(parents=True, exist_ok=True)
    for path, content in found["outputs"].items():
        (folder / path).write_bytes(content)
    title, rest = text.strip().split("\n", 1)
    downloads = _DOWNLOADS.format(name=name, script=script.name)
    (folder / f"{name}.md").write_text(f"{title}\n{downloads}\n{rest.strip()}\n", encoding="utf-8")
    write(jupytext.read(script), folder / f"{name}.ipynb")
    (folder / f"{name}.py").write_bytes(script.read_bytes())


def write_pages() -> None:
    """Run and write every tutorial."""
    for script in tutorials():
        print(f"running {script.relative_to(ROOT)}", flush=True)
        write_page(script, executed(script))
