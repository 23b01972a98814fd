"""What is cached on disk is never older than the sources, never read when damaged, and never needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from feedalign.theory.shallow import compiling

CALLER = """
from compiling import compiled
from callee import answer

@compiled
def ask(x):
    return answer(x)

if __name__ == "__main__":
    import caller
    found = caller.ask(1.0)
    stats = getattr(caller.ask, "stats", None)  # none where numba is switched off
    print(found, sum(stats.cache_hits.values()) if stats else "interpreted")
"""
CALLEE = """
from compiling import compiled

@compiled
def answer(x):
    return {factor} * x
"""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A room of its own with two small kernels, one of which calls the other."""
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "compiling.py").write_text(Path(compiling.__file__).read_text())
    (folder / "caller.py").write_text(CALLER)
    return folder


def ask(room: Path, factor: float = 2.0, **environment: str) -> tuple[list[str], str]:
    """Run the kernels in a new process; return the answer with the number of cache hits, and what was said."""
    (room / "callee.py").write_text(CALLEE.format(factor=factor))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "caller.py"],
        cwd=room,
        env={**inherited, "PYTHONPATH": str(room), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nb[ic]"))


def test_a_change_in_another_file_is_seen_and_old_files_go(room: Path) -> None:
    """numba itself looks only at the file of the function that is called."""
    assert ask(room, 2.0) == (["2.0", "0"], "")
    assert ask(room, 2.0) == (["2.0", "1"], ""), "nothing changed: read from disk"
    assert ask(room, 3.0) == (["3.0", "0"], "")
    assert len(list((room / "__pycache__").glob("feedalign-*"))) == 1


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"no pickle"],
    ids=["truncated", "empty", "other bytes"],
)
@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
def test_a_damaged_file_is_thrown_away_and_compiled_again(
    room: Path, damage: Callable[[bytes], bytes], kind: str
) -> None:
    ask(room)
    damaged = sorted(room.rglob(kind))
    assert len(damaged) == 2
    for file in damaged:
        file.write_bytes(damage(file.read_bytes()))
    assert ask(room) == (["2.0", "0"], "")
    assert ask(room) == (["2.0", "1"], "")


def test_where_nothing_can_be_written_it_compiles_without_a_cache_and_says_so_once(room: Path) -> None:
    (room / "__pycache__").write_text("a file, so that no folder can be made here, not even by root")
    answer, said = ask(room, HOME="/dev/null")
    assert answer == ["2.0", "0"]
    assert said.count("\n") == 1
    assert "compiled anew in every process (up to a minute). Set the environment variable NUMBA_CACHE_DIR" in said
    assert files(room) == []


def test_a_home_serves_where_the_installation_cannot_be_written(room: Path, tmp_path: Path) -> None:
    (room / "__pycache__").write_text("")
    for environment, place in (
        ({"HOME": str(tmp_path)}, tmp_path / ".cache" / "feedalign"),
        ({"HOME": "/dev/null", "XDG_CACHE_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg" / "feedalign"),
    ):
        assert ask(room, 2.0, **environment) == (["2.0", "0"], "")
        assert ask(room, 2.0, **environment) == (["2.0", "1"], "")
        assert len(files(place)) == 4


def test_the_users_own_folder_is_taken_and_stays_numbas_setting(room: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    with (room / "caller.py").open("a") as source:
        source.write("    import numba\n    print(numba.config.CACHE_DIR)\n")
    assert ask(room, NUMBA_CACHE_DIR=str(chosen)) == (["2.0", "0", str(chosen)], "")
    assert len(files(chosen)) == 4
    assert not files(room)


def test_two_installations_share_a_place_and_leave_each_others_files(room: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in ("compiling.py", "caller.py"):
        (other / file).write_text((room / file).read_text())
    place = {"NUMBA_CACHE_DIR": str(tmp_path / "shared")}
    ask(room, 2.0, **place)
    ask(other, 3.0, **place)
    assert ask(room, 2.0, **place) == (["2.0", "1"], "")
    assert ask(other, 3.0, **place) == (["3.0", "1"], "")


@pytest.mark.slow
def test_compiling_and_reading_from_disk_give_the_same_bits(tmp_path: Path) -> None:
    """A process that compiles also runs copies of functions that a process that reads from disk does not have."""
    code = """if True:
        import numpy as np
        from feedalign.theory import shallow
        start = shallow.OrderParameters(np.eye(2) / 50, np.ones((2, 2)) / 99, np.eye(2) + 0.1, [0.02, -0.01], [1, -1])
        learning = dict(feedback=[0.9, -0.4], lr=0.1, times=[1.0, 30.0, 1000.0])
        for activation in ("relu", "erf"):
            for one in (
                shallow.integrate(start, **learning, activation=activation),
                shallow.simulate(start, **learning, activation=activation, input_dim=20),
                shallow.simulate(start, **learning, activation=activation, input_dim=20, method="explicit"),
            ):
                print(activation, *(values.tobytes().hex() for values in (one.Q, one.R, one.v, one.overlap)))
                print(one.generalisation_error.tobytes().hex(), one.final.generalisation_error(activation).hex())
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiling_, reading = (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert len(compiling_.stdout.splitlines()) == 12
    assert reading.stdout == compiling_.stdout


def test_numba_can_be_switched_off(room: Path) -> None:
    assert ask(room, NUMBA_DISABLE_JIT="1") == (["2.0", "interpreted"], "")


def test_the_theory_runs_with_numba_switched_off() -> None:
    code = """if True:
        import numpy as np
        from feedalign.theory import shallow
        for activation in ("erf", "relu"):
            start = shallow.OrderParameters(np.eye(2) / 2, np.zeros((2, 2)), np.eye(2), [0.5, -0.2], np.ones(2))
            learning = dict(feedback=[1.0, -1.0], lr=0.1, times=[0.5], activation=activation)
            exact = shallow.integrate(start, **learning, rtol=1e-4, atol=1e-4).generalisation_error
            simulated = shallow.simulate(start, **learning, input_dim=50, seeds=[0, 1]).generalisation_error.mean(0)
            assert 0 < exact < 2 and 0 < simulated < 2, (exact, simulated)
        print("done")
    """
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
