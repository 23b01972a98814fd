"""What is built: the wheel holds all it needs, and a type checker sees the types of the installed package."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import feedalign

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

CLIENT = """
import torch
from torch import nn

import feedalign as fa

net = fa.DFA(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), feedback=fa.feedback.Uniform(), seed=0)
x, y = torch.randn(5, 4), torch.zeros(5, dtype=torch.long)
layers: dict[str, float] = fa.gradient_alignment(net, nn.functional.cross_entropy, x, y).layers
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel built from this archive."""
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation the build needs no network: the tests' environment has hatchling.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel; torch and the other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    # A .pth file adds a folder to the path, but not what that folder's own .pth files add: no editable feedalign.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin/python"


@pytest.fixture(scope="module")
def complaints(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `mypy --strict` says of a right client and of a wrong one.

    Mypy does not read torch and numpy here, which would take half a minute: `make types` checks this checkout's tests
    and examples, clients all of them, against the types of both.
    """
    folder = tmp_path_factory.mktemp("client")
    (folder / "right.py").write_text(CLIENT)
    wrong = CLIENT.replace("seed=0", "seed='zero'").replace("dict[str, float]", "list[str]")
    (folder / "wrong.py").write_text(wrong)
    (folder / "mypy.ini").write_text("[mypy]\nstrict = True\n[mypy-torch.*,numpy.*]\nfollow_imports = skip\n")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(installed), "right.py", "wrong.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = (path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert names == {path.relative_to(ROOT / "src").as_posix() for path in sources}


def test_the_source_archive_has_the_tests_but_no_results(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        tops = {Path(name).parts[1] for name in archive.getnames()}
    assert {"src", "tests", "pyproject.toml", "README.md", "LICENSE"} <= tops
    assert not tops & {"runs", "site", "benchmarks", "docs", ".github", ".venv"}


def test_the_version_of_the_wheel_is_that_of_the_package(built: Path) -> None:
    assert next(built.glob("*.whl")).name == f"feedalign-{feedalign.__version__}-py3-none-any.whl"


def test_the_installed_package_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    """The control of the tests below: no type checker looks into this checkout instead."""
    code = "import feedalign; print(feedalign.__file__)"
    done = subprocess.run([installed, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    assert Path(done.stdout).is_relative_to(installed.parents[1])


def test_a_strict_type_checker_accepts_a_right_client_and_sees_what_is_wrong(complaints: str) -> None:
    assert "right.py" not in complaints
    assert 'Argument "seed" to "DFA" has incompatible type "str"; expected "int"' in complaints
    assert 'expression has type "dict[str, float]", variable has type "list[str]"' in complaints
    assert "Found 2 errors in 1 file (checked 2 source files)" in complaints
