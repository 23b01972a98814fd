"""Progress is a bar on a terminal and a few plain lines elsewhere."""

from __future__ import annotations

import pytest

from feedalign.lab.data.meter import Meter

MIB = 2**20


def download(meter: Meter, size: int) -> None:
    """Count a download in blocks of a mebibyte; the last block may be smaller."""
    meter.total = size
    for begin in range(0, size, MIB):
        meter.update(min(MIB, size - begin))


def test_lines_are_few_and_end_with_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("it", show=True) as meter:
        download(meter, 100 * MIB + 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fetching it"
    assert lines[-1] == "fetching it: 105 of 105 MB"
    assert len(lines) < 10


def test_an_unknown_size_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("it", show=True) as meter:
        meter.update(20 * MIB)
    assert capsys.readouterr().err == "fetching it\nfetching it: 21 MB\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Meter("it", show=True) as meter:
        download(meter, 100 * MIB)
    said = capsys.readouterr().err
    assert "fetching" not in said
    assert "104.9/104.9 MB" in said


@pytest.mark.parametrize("terminal", ["0", "1"])
def test_silence_is_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: str) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    with Meter("it", show=False) as meter:
        download(meter, 100 * MIB)
    assert capsys.readouterr() == ("", "")
