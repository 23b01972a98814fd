"""Look a key up among pairs that were just shown: a task for two blocks of attention together.

A sequence shows six pairs of a key and a value, and then asks for the values of four of the keys. Block 1 has to write
beside each value which key stood before it; block 2 has to find that key. So block 1 is of use at tokens that have no
error of their own. The script compares backprop, DFA with a point at each block, DFA with a point at the last block
alone, and frozen blocks.

Run: python examples/associative_recall.py
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign.lab.data import NO_TARGET, associative_recall

PAIRS, KEYS, VALUES, BATCH, LR, WARM_UP = 6, 16, 16, 64, 3e-3, 100
STEPS, SEEDS = 600, 3


def network(seed: int) -> fa.networks.Transformer:
    """Return two blocks over the tokens of keys and values."""
    return fa.networks.Transformer(
        KEYS + VALUES, VALUES, width=64, blocks=2, context=2 * PAIRS + 4, seed=seed
    )


def arms(seed: int) -> dict[str, fa.Wrapped]:
    """Return the wrapped networks to compare, by what they are; all begin with the same weights."""
    both, shared = ["block1", "block2"], fa.feedback.Shared()
    return {
        "backprop": fa.Backprop(network(seed), both),
        "DFA, point: block 2": fa.DFA(network(seed), ["block2"], shared, seed),
        "DFA, points: blocks 1 and 2": fa.DFA(network(seed), both, shared, seed),
        "frozen blocks": fa.Frozen(network(seed), ["block1.embedding", *both]),
    }


def loss_fn(output: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of −ln p over the queries."""
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET)


def trained(net: fa.Wrapped, steps: int, seed: int) -> float:
    """Train with AdamW; return the share of 2000 new queries that are answered right."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), LR)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * min(1, (step + 1) / WARM_UP)
        x, y = associative_recall(BATCH, order, pairs=PAIRS, keys=KEYS, values=VALUES)
        optimizer.zero_grad()
        loss_fn(net(x), y).backward()
        optimizer.step()
    x, y = associative_recall(500, order, pairs=PAIRS, keys=KEYS, values=VALUES)
    asked = y != NO_TARGET
    with torch.no_grad():
        return float((net(x).argmax(-1) == y)[asked].double().mean())


def main(arguments: list[str] | None = None) -> None:
    """Train every arm, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args(arguments)
    begin = time.perf_counter()
    print(
        f"accuracy after {given.steps} steps: mean, lowest and highest of {given.seeds} seeds; {PAIRS} pairs"
    )
    for name in arms(0):
        found = [trained(arms(seed)[name], given.steps, seed) for seed in range(given.seeds)]
        print(
            f"{name:30} {sum(found) / len(found):.3f} ({min(found):.3f}-{max(found):.3f})",
            flush=True,
        )
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
