"""How many times faster do ten networks train as one ensemble than one after another?

Networks 196-64-64-10 without biases, tanh, DFA, SGD, batches of 32, through the loop that the experiments use. Both
sides train the same networks on the same batches, in turns, and each round trains all ten networks by one epoch of
`STEPS` steps. Both are measured as they are and compiled.

The experiments use two cores in another way: two ensembles train at once, each in a process with one thread. One row
has the throughput of such a pair. "measuring" is what one measurement of the ensemble costs (alignment, overlap,
accuracies on MNIST's numbers of images), in steps.

Run: python benchmarks/ensemble.py
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from _timing import interleaved, save
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.lab.experiments.common.ensemble_training import FiniteLosses
from feedalign.lab.experiments.common.ensembles import measured_ensemble
from feedalign.lab.experiments.common.gradient_noise import GradientNoise
from feedalign.lab.experiments.common.sampling import Sample
from feedalign.lab.training import one_thread, train

NETWORKS, SIZES, BATCH, STEPS = 10, [196, 64, 64, 10], 32, 100
ASKED = 6
PAIR_EPOCHS = 100  # long enough that it does not matter which process of the pair begins first


Loss = Callable[[Tensor, Tensor], Tensor]


def training(net: nn.Module, loss_fn: Loss, order: Any, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return what trains a net by one epoch."""
    return partial(
        train,
        net,
        x,
        y,
        loss_fn=loss_fn,
        optimizer=torch.optim.SGD(net.parameters(), lr=1e-3),
        epochs=1,
        batch_size=BATCH,
        order=order,
    )


def ensemble(x: Tensor, y: Tensor, compiled: bool) -> Callable[[], None]:
    """Return what trains ten networks at once, as `EnsembleTraining` does."""
    net = fa.DFA(fa.networks.EnsembleMLP(NETWORKS, SIZES, "tanh", bias=False))
    if compiled:
        net.compile(fullgraph=True)
    counted = FiniteLosses(net, NETWORKS)
    return training(counted, counted.loss, orders(range(NETWORKS)), x, y)


def singles(x: Tensor, y: Tensor, compiled: bool) -> list[Callable[[], None]]:
    """Return what trains each of ten single networks."""
    nets = [fa.DFA(fa.networks.MLP(SIZES, "tanh", bias=False, seed=seed)) for seed in range(NETWORKS)]
    if compiled:
        for net in nets:
            net.compile(fullgraph=True)
    loss_fn = partial(functional.cross_entropy, reduction="sum")
    return [training(net, loss_fn, orders([seed])[0], x, y) for seed, net in enumerate(nets)]


def orders(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def made_up_data() -> tuple[Tensor, Tensor]:
    data = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS * BATCH, SIZES[0], generator=data)
    return x, torch.randint(SIZES[-1], (len(x),), generator=data)


def row(threads: int, compiled: bool) -> dict[str, Any]:
    x, y = made_up_data()
    together, alone = ensemble(x, y, compiled), singles(x, y, compiled)
    with one_thread() if threads == 1 else contextlib.nullcontext():
        at_once, one_by_one = interleaved(together, lambda: [run() for run in alone], rounds=9, warm_up=2)
    torch.compiler.reset()
    return {
        "what": "ten networks 196-64-64-10, batch 32, DFA, SGD: one after another, over an ensemble",
        "compiled": compiled,
        "threads": threads,
        "ratio": round(one_by_one / at_once, 2),
        "asked": ASKED,
        "ensemble_step_ms": round(1e3 * at_once / STEPS, 3),
        "single_step_ms": round(1e3 * one_by_one / STEPS / NETWORKS, 3),
    }


def pair(singles_ms: float) -> dict[str, Any]:
    """Compare ten networks one after another, on all threads, with the throughput of two ensembles at once."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        step_ms = statistics.mean(pool.map(ensemble_alone, range(2), chunksize=1))
    return {
        "what": "the same, over two ensembles at once, each in a process with one thread",
        "compiled": False,
        "threads": 2,
        "ratio": round(singles_ms / (step_ms / 2), 2),
        "ensemble_step_ms": round(step_ms, 3),
    }


@one_thread()
def ensemble_alone(_number: int) -> float:
    """Return the milliseconds of a step while the other process of the pair trains its ensemble."""
    run = ensemble(*made_up_data(), compiled=False)
    run()
    begin = time.perf_counter()
    for _ in range(PAIR_EPOCHS):
        run()
    return 1e3 * (time.perf_counter() - begin) / PAIR_EPOCHS / STEPS


@one_thread()
def measuring() -> dict[str, Any]:
    data = torch.Generator().manual_seed(0)
    images = torch.randn(10_000, SIZES[0], generator=data)
    labels = torch.randint(SIZES[-1], (len(images),), generator=data)
    sample = Sample(images, labels, labels < 2, images, labels, SIZES[-1])
    networks = fa.networks.EnsembleMLP(NETWORKS, SIZES, "tanh", bias=False)
    net = fa.DFA(networks)
    none = GradientNoise("none", 0.0, 0, 0)
    steps = ensemble(images[: STEPS * BATCH], labels[: STEPS * BATCH], compiled=False)
    trained, measured = interleaved(
        steps, partial(measured_ensemble, net, networks, sample, 500, BATCH, none), rounds=9, warm_up=2
    )
    return {
        "what": "one measurement of the ensemble, in steps",
        "threads": 1,
        "steps": round(measured / (trained / STEPS)),
        "measurement_ms": round(1e3 * measured, 1),
    }


def main() -> None:
    rows = [row(*of) for of in itertools.product((1, torch.get_num_threads()), (False, True))]
    alone = min(row["single_step_ms"] for row in rows if row["threads"] == torch.get_num_threads())
    save("ensemble", [*rows, pair(NETWORKS * alone), measuring()])


if __name__ == "__main__":
    main()
