"""Train wrapped models on half of each batch in one of two processes, or on the whole in one. No test by itself.

Run: python -m tests.rules.two_processes RANK INIT_FILE OUT
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from tests.cases.processes import work_and_save
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import feedalign as fa
from feedalign.errors import PointsError


def positive(args: tuple[torch.Tensor, ...], _kwargs: dict[str, Any]) -> torch.Tensor:
    """Call those samples real whose first number is positive: other parts of the batch in each process."""
    return args[0][:, 0] > 0


CASES: dict[str, dict[str, Any]] = {
    "DFA": {"rule": fa.DFA},
    "FA": {"rule": fa.FA},
    "KolenPollack": {"rule": fa.KolenPollack},
    "DirectKolenPollack": {"rule": fa.DirectKolenPollack},
    "DirectKolenPollack, not centred": {"rule": fa.DirectKolenPollack, "centred": False},
    "ConditionedDFA": {"rule": fa.ConditionedDFA, "every": 2},
    "DFA, drawn late": {"rule": fa.DFA, "late": True},
    "FA, drawn late": {"rule": fa.FA, "late": True},
    "KolenPollack, drawn late": {"rule": fa.KolenPollack, "late": True},
    "ConditionedDFA, drawn late": {"rule": fa.ConditionedDFA, "late": True, "every": 1},
    "DFA, accumulated": {"rule": fa.DFA, "parts": 2},
    "FA, accumulated": {"rule": fa.FA, "parts": 2},
    "DFA, recomputed": {"rule": fa.DFA, "recompute": True},
    "DirectKolenPollack, recomputed": {"rule": fa.DirectKolenPollack, "recompute": True},
    "ConditionedDFA, recomputed": {"rule": fa.ConditionedDFA, "recompute": True, "every": 1},
    "DFA, error inside": {"rule": fa.DFA, "error_at": "4"},
    "DFA, error before the readout": {"rule": fa.DFA, "error_at": "4.input"},
    "DirectKolenPollack, error inside": {"rule": fa.DirectKolenPollack, "error_at": "4"},
    "DirectKolenPollack, masked": {"rule": fa.DirectKolenPollack, "mask": positive},
    "ConditionedDFA, masked": {"rule": fa.ConditionedDFA, "mask": positive, "every": 1},
    "DFA, shared": {"rule": fa.DFA, "feedback": fa.feedback.Sketched(2, fa.feedback.Shared())},
    "DirectKolenPollack, shared": {"rule": fa.DirectKolenPollack, "feedback": fa.feedback.Shared()},
    "DirectKolenPollack, sketched": {"rule": fa.DirectKolenPollack, "feedback": fa.feedback.Sketched(2)},
    "DFA, aligned late": {"rule": fa.DFA, "late": True, "feedback": fa.feedback.Aligned()},
}


def model(*, late: bool) -> nn.Module:
    """Return a network; feedback is drawn late where it begins with a module that tells no shape."""
    layers = [nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)]
    return nn.Sequential(nn.Conv1d(1, 1, 1), nn.Flatten(), *layers) if late else nn.Sequential(*layers)


def trained(case: dict[str, Any], rank: int, world: int) -> dict[str, torch.Tensor]:
    options = dict(case)
    rule, late, parts = options.pop("rule"), options.pop("late", False), options.pop("parts", 1)
    # Each process begins elsewhere, and must end where the first one's start leads.
    torch.manual_seed(rank)
    net = rule(model(late=late).double(), seed=rank, **options)
    run: Any = DistributedDataParallel(net) if world > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, *([1] if late else []), 5, generator=generator, dtype=torch.float64)
        y = torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        for part in range(parts):
            mine = slice(rank * parts + part, None, world * parts)
            last = part == parts - 1
            with nullcontext() if last or world == 1 else run.no_sync():
                (functional.cross_entropy(run(x[mine]), y[mine]) / parts).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
    state: dict[str, torch.Tensor] = net.state_dict()
    return state


class LayerDropout(nn.Module):
    """Two residual layers, of which a process may leave one out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.blocks = nn.Linear(5, 5), nn.ModuleList(nn.Linear(5, 5) for _ in range(2))
        self.readout = nn.Linear(5, 3)
        self.left_out: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            x = x if i == self.left_out else x + torch.tanh(block(x))
        logits: torch.Tensor = self.readout(x)
        return logits


DROPPED: list[Any] = [fa.DFA, fa.FA, fa.ConditionedDFA, fa.KolenPollack, fa.DirectKolenPollack]


def dropping(rule: Any, rank: int, *, alike: bool) -> str:
    """Train one step with layer dropout; return the words of the refusal, or what is left of the feedback."""
    points = "auto" if issubclass(rule, fa.rules.SequentialRule) else ("blocks.0", "blocks.1")
    net = rule(LayerDropout(), points, seed=1)
    net.model.left_out = 0 if alike else rank
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(rank))
    run = DistributedDataParallel(net, find_unused_parameters=True)
    try:
        run(x).square().mean().backward()
    except PointsError as error:
        return str(error)
    return str([round(float(matrix.sum()), 5) for matrix in net.feedback_matrices.values()])


def work(rank: int, world: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what training ended with, by case, and what the rules told of layer dropout."""
    states = {name: trained(case, rank, world) for name, case in CASES.items()}
    ways = [(rule, alike) for rule in DROPPED for alike in (True, False)]
    words = {f"{rule.__name__}, {alike}": dropping(rule, rank, alike=alike) for rule, alike in ways}
    return states, words


if __name__ == "__main__":
    work_and_save(work)
