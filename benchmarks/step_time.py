"""How long is a DFA training step beside a backprop step of the same network?

A step is zero_grad, forward, cross-entropy, backward and plain SGD. DFA saves the products with transposed weights
and pays for the wrapper; `limit` is the ratio of multiplications alone. Each row is the median over fresh pairs of
networks, since where the allocator puts a small network changes its time by several per cent. Both networks of a pair
run as they are, and both compiled by `torch.compile`, which takes the calls, and with them the wrapper, out of a small
network's step. Where `biotorch` 0.0.16 is installed, its DFA stands beside ours.

The last rows are of an ensemble: one DFA step of ten networks at once beside ten steps of single ones.

Run: python benchmarks/step_time.py
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from _timing import interleaved, save
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.lab.training import one_thread

EVERY = torch.get_num_threads()
# width, depth (layers of weights), batch, steps a pair, pairs, what was asked for, threads
CASES = [
    (2048, 5, 512, 8, 5, 0.75, EVERY),
    (1024, 5, 512, 25, 9, 0.80, EVERY),
    (100, 5, 32, 400, 15, 1.14, EVERY),
    (100, 5, 32, 400, 15, 1.14, 1),
    (64, 4, 32, 400, 9, None, EVERY),
]
INPUTS, CLASSES = 784, 10
MEMBERS, SIZES, BATCH = 10, [196, 64, 64, 64, CLASSES], 32  # of the ensemble

Loss = Callable[[Tensor, Tensor], Tensor]


def step(net: nn.Module, x: Tensor, y: Tensor, loss_fn: Loss = functional.cross_entropy, compiled: bool = False) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return loss_fn(net(x), y)

    forward = torch.compile(loss, fullgraph=True) if compiled else loss

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward(x, y).backward()
        optimizer.step()

    return run


def biotorch_step(sizes: list[int], x: Tensor, y: Tensor) -> list[Any]:
    """The same step in BioTorch's DFA, which wants the targets in the forward pass; nothing where it is missing."""
    try:
        module = importlib.import_module("biotorch.module.biomodule")
    except ImportError:
        return []
    with contextlib.redirect_stdout(None):  # it tells of every conversion
        net = module.BioModule(fa.networks.MLP(sizes, "relu"), mode="dfa", output_dim=CLASSES)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_fn(net(x, y, loss_fn), y).backward()
        optimizer.step()

    return [run]


def batch_of(inputs: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, inputs, generator=generator), torch.randint(CLASSES, (batch,), generator=generator)


def single(
    width: int, depth: int, batch: int, steps: int, pairs: int, asked: float | None, threads: int
) -> dict[str, Any]:
    with on_threads(threads):
        return measured(width, depth, batch, steps, pairs) | {"asked": asked, "threads": threads}


def on_threads(threads: int) -> AbstractContextManager[None]:
    return one_thread() if threads == 1 else contextlib.nullcontext()


def measured(width: int, depth: int, batch: int, steps: int, pairs: int) -> dict[str, Any]:
    sizes = [INPUTS, *[width] * (depth - 1), CLASSES]
    x, y = batch_of(INPUTS, batch)
    ratios: dict[bool, list[float]] = {False: [], True: []}
    dfa_ms, peers = [], []
    for compiled, _ in itertools.product(ratios, range(pairs)):
        nets = fa.DFA(fa.networks.MLP(sizes, "relu")), fa.networks.MLP(sizes, "relu")
        ours, backprop = (step(net, x, y, compiled=compiled) for net in nets)
        dfa, bp = interleaved(ours, backprop, rounds=steps)
        ratios[compiled].append(dfa / bp)
        torch.compiler.reset()
        if compiled:
            continue
        dfa_ms.append(1e3 * dfa)
        for theirs in biotorch_step(sizes, x, y):  # in pairs too: a third one in turn would empty the caches
            peer, bp = interleaved(theirs, backprop, rounds=steps)
            peers.append(peer / bp)
    products = [fan_in * fan_out for fan_in, fan_out in itertools.pairwise(sizes)]
    limit = 2 * sum(products) / (2 * sum(products) + sum(products[1:]))
    return {
        "width": width,
        "depth": depth,
        "batch": batch,
        "dfa_over_backprop": round(statistics.median(ratios[False]), 3),
        "lowest": round(min(ratios[False]), 3),
        "highest": round(max(ratios[False]), 3),
        "compiled_dfa_over_backprop": round(statistics.median(ratios[True]), 3),
        "compiled_lowest": round(min(ratios[True]), 3),
        "compiled_highest": round(max(ratios[True]), 3),
        "limit": round(limit, 3),
        "biotorch_over_backprop": round(statistics.median(peers), 3) if peers else None,
        "dfa_step_ms": round(statistics.median(dfa_ms), 3),
    }


def summed(output: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output.mT, labels, reduction="sum") / BATCH


def ensemble(threads: int, compiled: bool) -> dict[str, Any]:
    x, y = batch_of(SIZES[0], BATCH)
    net = fa.DFA(fa.networks.EnsembleMLP(MEMBERS, SIZES, "tanh", bias=False))
    together = step(net, x, y.repeat(MEMBERS, 1), summed, compiled)
    one = partial(fa.networks.MLP, SIZES, "tanh", bias=False)
    alone = [step(fa.DFA(one()), x, y, compiled=compiled) for _ in range(MEMBERS)]
    with on_threads(threads):
        at_once, one_by_one = interleaved(together, lambda: [run() for run in alone], rounds=201)
    torch.compiler.reset()
    return {
        "what": "ensemble of 10 nets 196-64-64-64-10, batch 32, over ten single nets",
        "compiled": compiled,
        "throughput": round(one_by_one / at_once, 2),
        "asked": 5,
        "ensemble_step_ms": round(1e3 * at_once, 3),
        "threads": threads,
    }


def main() -> None:
    rows = [single(*case) for case in CASES]
    peers = [
        {name: row[name] for name in ("width", "depth", "batch", "threads")} | {"biotorch_over_backprop": ratio}
        for row in rows
        if (ratio := row.pop("biotorch_over_backprop")) is not None
    ]
    if peers:  # a file of their own, which a run without BioTorch leaves as it is
        save("step_time_biotorch", peers)
    rows += [ensemble(*of) for of in itertools.product((1, EVERY), (False, True))]
    save("step_time", rows)


if __name__ == "__main__":
    main()
