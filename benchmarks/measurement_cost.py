"""What does one measurement of gradient alignment cost, in steps of backprop?

A step is one forward and one backward pass that leaves gradients, without the optimiser. Interleaved in one process, on
networks of several widths, and a convolutional one, on one thread. At the pre-activation, asked is a factor of at most
1.6 at width 100, and of at most 1.0 at width 1024.

In products of matrices alone, of an MLP: 2/3 at pre-activation and point, where no gradient of weights is made, and 4/3
at the parameters, where it is made twice. Small networks pay for the calls themselves.

Run: python benchmarks/measurement_cost.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from _timing import interleaved, save
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.lab.training import one_thread

Place = Literal["preactivation", "point", "parameters"]
PLACES: tuple[Place, ...] = ("preactivation", "point", "parameters")
ASKED = {100: 1.6, 1024: 1.0}  # by width
FRESH = 7  # networks a row, of which the median is taken: where the allocator puts them changes their times


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 13 * 13, 10),
    )  # fmt: skip


def cost(what: str, make: Callable[[], nn.Sequential], x: torch.Tensor, rounds: int) -> dict[str, Any]:
    y = torch.arange(len(x)) % 10
    step_ms, ratios = [], []
    for _ in range(FRESH):
        net = fa.DFA(make(), seed=0)
        net(x)
        seconds, *measured = interleaved(
            partial(backprop, net, x, y), *(partial(measure, net, x, y, at) for at in PLACES), rounds=rounds
        )
        step_ms.append(1e3 * seconds)
        ratios.append([each / seconds for each in measured])
    of_place = dict(zip(PLACES, zip(*ratios, strict=True), strict=True))
    return {
        "what": what,
        "backprop_ms": round(statistics.median(step_ms), 2),
        **{f"at_{at}": round(statistics.median(values), 2) for at, values in of_place.items()},
        **{f"highest_at_{at}": round(max(values), 2) for at, values in of_place.items()},
        "threads": torch.get_num_threads(),
    }


def backprop(net: fa.DFA, x: torch.Tensor, y: torch.Tensor) -> None:
    net.zero_grad(set_to_none=True)
    with net.backprop():
        loss = functional.cross_entropy(net(x), y)
    loss.backward()


def measure(net: fa.DFA, x: torch.Tensor, y: torch.Tensor, at: Place) -> None:
    fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at)


@one_thread()
def main() -> None:
    torch.manual_seed(0)
    rows = [
        cost(
            f"MLP, 5 layers of width {width}, batch {batch}",
            partial(fa.networks.MLP, [width] * 5 + [10]),
            torch.randn(batch, width),
            rounds,
        )
        | {"asked": ASKED.get(width)}
        for width, batch, rounds in ((100, 32, 201), (256, 128, 51), (1024, 512, 7))
    ]
    rows.append(cost("convnet, 3×32×32, batch 64", convnet, torch.randn(64, 3, 32, 32), 9))
    save("measurement_cost", rows)


if __name__ == "__main__":
    main()
