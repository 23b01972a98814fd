"""The command line on outputs that are not a terminal: other encodings, closed pipes, full disks, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "feedalign"]
SHORT = ["theory", "--end-time", "2", "--measurements", "3", "--input-dim", "60"]


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["cp1252", "ASCII"],
)
@pytest.mark.parametrize("args", [SHORT, ["theory", "--help"], ["list"]], ids=["theory", "help", "list"])
def test_characters_that_the_output_lacks_are_escaped(
    environment: dict[str, str], args: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*COMMAND, *args], capture_output=True, check=False, cwd=tmp_path, env={**os.environ, **environment}
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    if args == SHORT:
        assert rb"\u03b5_g DFA" in done.stdout


def test_characters_that_the_output_has_are_printed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*COMMAND, *SHORT], capture_output=True, check=True, cwd=tmp_path, env=environment)
    assert "ε_g DFA" in done.stdout.decode()


def with_a_reader_that_leaves(args: list[str], folder: Path) -> tuple[int, str]:
    """Run a command whose reader closes the pipe before anything is printed; its status and standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *args], stdout=writing, stderr=subprocess.PIPE, check=False, cwd=folder, text=True)
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("args", [["list"], ["--help"], ["reproduce", "--help"]], ids=" ".join)
def test_a_closed_pipe_is_quiet(args: list[str], tmp_path: Path) -> None:
    assert with_a_reader_that_leaves(args, tmp_path) == (141, "")


def test_a_closed_pipe_does_not_stop_the_work(tmp_path: Path) -> None:
    status, err = with_a_reader_that_leaves(SHORT, tmp_path)
    assert status == 141
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    (folder,) = (tmp_path / "runs/theory").iterdir()
    assert (folder / "figure.svg").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("args", [["list"], ["--help"]], ids=" ".join)
def test_a_full_disk_gives_status_3_and_a_line(args: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *args], stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("feedalign: [Errno 28]")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["tyro.conf", "xarray", "scipy"])
def test_ctrl_c_while_a_module_loads_gives_status_130(module: str, tmp_path: Path) -> None:
    """The signal arrives at the moment at which the module is looked for."""
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from feedalign.cli import main
sys.exit(main({SHORT!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("feedalign: interrupted")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_help_is_printed_gives_status_130() -> None:
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupted:
    encoding = "utf-8"
    def write(self, text):
        os.kill(os.getpid(), signal.SIGINT)
    def flush(self): pass
    def isatty(self): return False
sys.stdout = Interrupted()
from feedalign.cli import main
sys.exit(main(["--help"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.startswith("feedalign: interrupted")


def picture(folder: Path, **environment: str) -> bytes:
    """The figure of a short run in a folder."""
    subprocess.run([*COMMAND, *SHORT], capture_output=True, check=True, cwd=folder, env={**os.environ, **environment})
    return next(folder.glob("runs/theory/*/figure.svg")).read_bytes()


@pytest.fixture(scope="module")
def plain_picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return picture(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("backend", ["nonsense", "tkagg", "module://no_such_module"])
def test_the_users_backend_and_matplotlibrc_do_not_matter(backend: str, plain_picture: bytes, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\naxes.facecolor: black\n")
    assert picture(tmp_path, MPLBACKEND=backend) == plain_picture


def test_interrupting_is_what_signals_call_it() -> None:
    assert 128 + signal.SIGINT == 130
    assert 128 + signal.SIGPIPE == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize(("args", "status"), [(["list"], 0), (["--help"], 0), (["lst"], 2)], ids=lambda part: str(part))
def test_a_stream_that_the_caller_has_closed_changes_no_status(
    args: list[str], status: int, closed: str, tmp_path: Path
) -> None:
    """Python has no standard stream then. What would be printed there is dropped."""
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, *args], capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
    assert closed != "2>&-" or status or done.stdout


def test_an_interrupt_while_the_command_line_is_loaded_is_told_in_words(tmp_path: Path) -> None:
    code = """
import sys
from feedalign.__main__ import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("feedalign.cli."):
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.exit(main(["list"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=tmp_path, text=True)
    assert (done.returncode, done.stderr) == (130, "feedalign: interrupted\n")
