"""Install the packages of requirements.txt one by one; one that cannot be installed is named and left out.

Run: make compatibility
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def requirements(text: str) -> list[str]:
    """Return the requirements of a file for pip, without its comments."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def main() -> None:
    """Install what can be installed."""
    for requirement in requirements((HERE / "requirements.txt").read_text(encoding="utf-8")):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(HERE.parent / "constraints.txt")]
        done = subprocess.run([*pip, requirement], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "pip gave no reason").splitlines()[-1]
            print(f"{requirement} cannot be installed, so its rows will say 'not tried': {reason}")
        else:
            print(f"{requirement} is installed")


if __name__ == "__main__":
    main()
