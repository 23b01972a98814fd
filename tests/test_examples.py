"""The scripts in `examples/`: their numbers stand in the documentation, so what they compute is tested too.

Tutorials are run as a user would run them. `make docs` runs the same scripts and makes pages of them.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional

import feedalign as fa

ROOT = Path(__file__).parents[1]
# A tutorial begins with its text. Together they may take two minutes of one core.
TUTORIALS = [path for path in sorted(ROOT.glob("examples/*.py")) if path.read_text().startswith("# %% [markdown]")]
SECONDS = 120 / 6


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_two_recurrent_networks_are_one_and_their_points_make_the_difference() -> None:
    recurrent = example("recurrent")
    x, cues = recurrent.batch(5, torch.Generator().manual_seed(0))
    assert x.shape == (recurrent.BATCH, 6, recurrent.INPUTS)
    cell, layer = recurrent.CellNet(3), recurrent.LayerNet(3)
    torch.testing.assert_close(cell(x), layer(x))
    for net in (fa.DFA(cell, points="cell"), fa.DFA(layer, points="layer")):
        assert fa.check_rule(net, functional.cross_entropy, x, cues).worst < 1e-12


def test_alignment_over_delay_begins_with_that_of_the_readout_and_goes_back_through_the_cell() -> None:
    """The true derivative is Wᵀe at the last state, and Uᵀ((1 − h²) ⊙ Wᵀe) at the state before it."""
    recurrent = example("recurrent")
    model = recurrent.CellNet(3)
    net = fa.DFA(model, points="cell", example_input=torch.zeros(1, 6, recurrent.INPUTS))
    x, cues = recurrent.batch(5, torch.Generator().manual_seed(2))
    h = torch.zeros(len(x), recurrent.UNITS)
    with torch.no_grad():
        for step in x.unbind(1):
            h = model.cell(step, h)
        output = model.readout(h)
        e = output.softmax(1) - functional.one_hot(cues, recurrent.CUES)
        sent = e @ net.feedback_matrices["cell"].T
        last = e @ model.readout.weight
        before = (last * (1 - h**2)) @ model.cell.weight_hh
    found = recurrent.alignment_over_delay(net, 5)
    assert len(found) == 6
    for cosine, true in zip(found, (last, before), strict=False):
        expected = float(functional.cosine_similarity(sent, true, dim=1).mean())
        assert cosine == pytest.approx(expected, abs=1e-4)  # float32


@pytest.mark.parametrize("arguments", [[], ["--rule", "frozen", "--norm", "pre"], ["--rule", "backprop", "--own"]])
def test_the_character_model_trains(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 300)
    example("character_model").main([*arguments, "--steps", "2", "--text", str(tmp_path / "text.txt")])
    assert "bits per character" in capsys.readouterr().out.splitlines()[-1]


def test_there_are_six_tutorials_and_the_overview_names_each() -> None:
    overview = (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8")
    named = [f"({path.stem.replace('_', '-')}.md)" for path in TUTORIALS]
    assert len(named) == 6
    assert [name for name in named if name not in overview] == []


@pytest.mark.slow
@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_a_tutorial_runs_shows_a_figure_and_keeps_to_its_time(
    script: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Warnings are errors, unless pytest was told otherwise; the matplotlib backend without a window gives one."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT / "src")}
    (warnings,) = request.config.getoption("pythonwarnings") or ["error"]
    command = [sys.executable, "-W", warnings, "-W", "ignore:FigureCanvasAgg is non-interactive", str(script)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < SECONDS
    assert "plt.show()" in script.read_text(encoding="utf-8")


def test_associative_recall_compares_the_points(capsys: pytest.CaptureFixture[str]) -> None:
    recall = example("associative_recall")
    recall.main(["--steps", "2", "--seeds", "1"])
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:-1]] == list(recall.arms(0))


def test_a_point_between_the_blocks_sends_no_error_to_the_pairs() -> None:
    """The reason in words: only the queries have an error, and nothing leads from the second block to the first."""
    recall = example("associative_recall")
    x, y = recall.associative_recall(8, torch.Generator().manual_seed(0), pairs=recall.PAIRS)
    sent = {}
    for name in ("backprop", "DFA, points: blocks 1 and 2", "DFA, point: block 2"):
        net = recall.arms(0)[name]
        h: list[torch.Tensor] = []
        net.model.block1.register_forward_hook(lambda _m, _x, output, h=h: h.append(output), prepend=True)
        loss = recall.loss_fn(net(x), y)
        (sent[name],) = torch.autograd.grad(loss, h[-1])  # of the last pass: the first one told the shapes
    pairs = slice(0, 2 * recall.PAIRS)
    assert not sent["DFA, points: blocks 1 and 2"][:, pairs].any()
    assert sent["DFA, points: blocks 1 and 2"][:, pairs.stop :].any()
    assert sent["DFA, point: block 2"][:, pairs].any()
    assert sent["backprop"][:, pairs].any()
