"""How long is a DFA training step beside a backprop step of the same network?

A step is zero_grad, forward, cross-entropy, backward and plain SGD. DFA saves the products with transposed weights
and pays for the wrapper; `limit` is the ratio of multiplications alone. Each row is the median over fresh pairs of
networks, since where the allocator puts a small network changes its time by several per cent.

Run: python benchmarks/step_time.py
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import torch
from _timing import interleaved, save
from torch import nn
from torch.nn import functional

import feedalign as fa

# width, depth (layers of weights), batch, steps a pair, pairs, what was asked for
CASES = [
    (2048, 5, 512, 6, 3, 0.75),
    (1024, 5, 512, 15, 5, 0.80),
    (100, 5, 32, 400, 9, 1.10),
    (64, 4, 32, 400, 9, None),
]
INPUTS, CLASSES = 784, 10


def step(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run


def main() -> None:
    rows = []
    for width, depth, batch, steps, pairs, asked in CASES:
        sizes = [INPUTS, *[width] * (depth - 1), CLASSES]
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, INPUTS, generator=generator)
        y = torch.randint(CLASSES, (batch,), generator=generator)
        ratios, dfa_ms = [], []
        for _ in range(pairs):
            nets = fa.DFA(fa.networks.MLP(sizes, "relu")), fa.networks.MLP(sizes, "relu")
            dfa, bp = interleaved(*(step(net, x, y) for net in nets), rounds=steps)
            ratios.append(dfa / bp)
            dfa_ms.append(1e3 * dfa)
        products = [fan_in * fan_out for fan_in, fan_out in itertools.pairwise(sizes)]
        limit = 2 * sum(products) / (2 * sum(products) + sum(products[1:]))
        rows.append(
            {
                "width": width,
                "depth": depth,
                "batch": batch,
                "dfa_over_backprop": round(statistics.median(ratios), 3),
                "lowest": round(min(ratios), 3),
                "highest": round(max(ratios), 3),
                "asked": asked,
                "limit": round(limit, 3),
                "dfa_step_ms": round(statistics.median(dfa_ms), 3),
                "threads": torch.get_num_threads(),
            }
        )
    save("step_time", rows)


if __name__ == "__main__":
    main()
