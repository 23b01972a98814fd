"""What is cached on disk is never older than the sources."""

import os
import subprocess
import sys
from pathlib import Path

from feedalign.theory.shallow import compiling


def test_a_change_in_another_file_is_seen(tmp_path: Path) -> None:
    """numba itself looks only at the file of the function that is called."""
    (tmp_path / "compiling.py").write_text(Path(compiling.__file__).read_text())
    (tmp_path / "caller.py").write_text(
        "from compiling import compiled\nfrom callee import answer\n"
        "@compiled\ndef ask(x):\n    return answer(x)\n"
        "if __name__ == '__main__':\n    import caller\n"
        "    print(caller.ask(1.0), sum(caller.ask.stats.cache_hits.values()))\n"
    )

    def ask(factor: float) -> list[str]:
        callee = f"from compiling import compiled\n@compiled\ndef answer(x):\n    return {factor} * x\n"
        (tmp_path / "callee.py").write_text(callee)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.check_output(
            [sys.executable, "caller.py"], cwd=tmp_path, env=environment, text=True
        ).split()

    assert ask(2.0) == ["2.0", "0"]
    assert ask(2.0) == ["2.0", "1"], "nothing changed: read from disk"
    assert ask(3.0) == ["3.0", "0"]
