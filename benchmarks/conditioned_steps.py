"""How many steps does ConditionedDFA save where the outputs are correlated or of unequal size?

Deep linear networks with three hidden layers of width 100 learn a linear teacher of two outputs from zero weights, on
fresh batches of 64, with η = 0.02. The outputs have the covariance [[1, α(1−β)], [α(1−β), α²]], scaled to a variance of
2 in all. Steps are counted until 1 % of the loss is left.

Run: python benchmarks/conditioned_steps.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _timing import save
from scipy.linalg import sqrtm

import feedalign as fa

PAIRS = ((1.0, 1.0), (0.2, 1.0), (1.0, 0.2), (0.2, 0.2))  # α, β
DRAWS, INPUTS, WIDTH, BATCH, LR = 5, 10, 100, 64, 0.02
MOST = 2000


def steps_to_one_per_cent(rule: Any, alpha: float, beta: float, draw: int, scaled: bool = True) -> int:
    covariance = np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])
    if scaled:
        covariance *= 2 / np.trace(covariance)
    basis = np.linalg.qr(np.random.default_rng([0, draw]).standard_normal((INPUTS, 2)))[0]
    teacher = torch.from_numpy(np.real(sqrtm(covariance)) @ basis.T)
    net = rule(fa.networks.MLP([INPUTS, WIDTH, WIDTH, WIDTH, 2], "linear", bias=False).double(), seed=draw)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    generator = torch.Generator().manual_seed(draw)
    for step in range(MOST):
        with torch.no_grad():
            wrong = net(torch.eye(INPUTS).double()).T - teacher
        if wrong.square().sum() < 0.01 * teacher.square().sum():
            return step
        x = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        ((net(x) - x @ teacher.T).square().sum(1).mean() / 2).backward()
        optimizer.step()
    raise RuntimeError(f"{MOST} steps are not enough")


def rows() -> list[dict[str, Any]]:
    white = [steps_to_one_per_cent(fa.DFA, 1.0, 1.0, draw) for draw in range(DRAWS)]
    found = []
    for alpha, beta in PAIRS:
        for scaled in (True, False):
            dfa = [steps_to_one_per_cent(fa.DFA, alpha, beta, draw, scaled) for draw in range(DRAWS)]
            own = [steps_to_one_per_cent(fa.ConditionedDFA, alpha, beta, draw, scaled) for draw in range(DRAWS)]
            found.append(
                {
                    "alpha": alpha,
                    "beta": beta,
                    "scaled": scaled,
                    "dfa_fewest": min(dfa),
                    "dfa_most": max(dfa),
                    "conditioned_fewest": min(own),
                    "conditioned_most": max(own),
                    "largest_ratio": round(max(one / other for one, other in zip(own, white, strict=True)), 3),
                }
            )
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    save("conditioned_steps", rows())
