"""What does one measurement of gradient alignment cost, in steps of backprop?

A step is one forward and one backward pass that leaves gradients, without the optimiser. Interleaved in one process, on
networks of several widths, and a convolutional one; asked is a factor of at most 1.4.

Run: python benchmarks/measurement_cost.py
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from _timing import interleaved, save
from torch import nn
from torch.nn import functional

import feedalign as fa

PLACES: tuple[Literal["preactivation", "point", "parameters"], ...] = ("preactivation", "point", "parameters")


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 13 * 13, 10),
    )  # fmt: skip


def cost(what: str, model: nn.Sequential, x: torch.Tensor, rounds: int) -> dict[str, Any]:
    net = fa.DFA(model, seed=0)
    y = torch.arange(len(x)) % 10
    net(x)

    def backprop() -> None:
        net.zero_grad(set_to_none=True)
        with net.backprop():
            loss = functional.cross_entropy(net(x), y)
        loss.backward()

    seconds, *measured = interleaved(
        backprop, *(lambda at=at: fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at) for at in PLACES),
        rounds=rounds,
    )  # fmt: skip
    ratios = {f"at_{at}": round(each / seconds, 2) for at, each in zip(PLACES, measured, strict=True)}
    return {"what": what, "backprop_ms": round(1e3 * seconds, 2), **ratios, "asked": 1.4}


def main() -> None:
    torch.manual_seed(0)
    rows = [
        cost(
            f"MLP, 5 layers of width {width}, batch {batch}",
            fa.networks.MLP([width] * 5 + [10]),
            torch.randn(batch, width),
            rounds,
        )
        for width, batch, rounds in ((100, 32, 201), (256, 128, 101), (1024, 512, 15))
    ]
    rows.append(cost("convnet, 3×32×32, batch 64", convnet(), torch.randn(64, 3, 32, 32), 15))
    save("measurement_cost", rows)


if __name__ == "__main__":
    main()
