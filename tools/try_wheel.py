"""Install the built wheel, without extras, into an empty environment and try what a new user tries first.

README's first Python example must run, and `feedalign list` must name the extra that the command needs.

Run: make build
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def first_example(readme: str) -> str:
    """Return the first Python block of a Markdown text."""
    found = re.search(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit("README.md has no Python example: nothing to try the wheel with")
    return found[1]


def built_wheel() -> Path:
    """Return the one wheel in dist/."""
    wheels = list((ROOT / "dist").glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"dist/ holds {len(wheels)} wheels, expected one; build it with: make build")
    return wheels[0]


def try_wheel(folder: Path) -> None:
    """Install and try in this folder; exit with a sentence at what goes wrong."""
    venv.create(folder, with_pip=True)
    python, command = folder / "bin/python", folder / "bin/feedalign"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", built_wheel()], check=True
    )
    # In the folder of the environment, so that Python finds the wheel's package and not this checkout.
    subprocess.run(
        [python, "-W", "error", "-c", first_example((ROOT / "README.md").read_text())], cwd=folder, check=True
    )
    done = subprocess.run([command, "list"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 3 or not done.stderr.endswith("pip install 'feedalign[lab]'\n"):
        sys.exit(
            f"`feedalign list` without the extra lab gave status {done.returncode} and: {done.stdout}{done.stderr}"
        )
    print(f"{built_wheel().name} works in an empty environment; `feedalign list` says there: {done.stderr}", end="")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        try_wheel(Path(temporary))
