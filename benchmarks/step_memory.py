"""How much memory does a DFA training step need beside a backprop step of the same network?

A step is forward, cross-entropy and backward; its peak, of all that is allocated in it, includes the gradients of the
parameters, which are given by themselves too. `recompute` is DFA that keeps no graph: its second forward pass costs
what DFA saves in products with transposed weights. Times are medians over whole steps with plain SGD.

Run: python benchmarks/step_memory.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from _timing import interleaved, save
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import feedalign as fa

# width, depth (layers of weights), batch, steps timed
CASES = [(512, 5, 1024, 12), (512, 20, 1024, 8), (512, 80, 1024, 4)]
CLASSES = 10


def peak_mb(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the most that a step has allocated at any one time, from the profiler's trace of every allocation."""
    functional.cross_entropy(net(x), y).backward()  # what the first pass alone allocates stays
    net.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        functional.cross_entropy(net(x), y).backward()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak / 2**20


def step(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run


def main() -> None:
    rows = []
    for width, depth, batch, steps in CASES:
        sizes = [*[width] * depth, CLASSES]
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, width, generator=generator)
        y = torch.randint(CLASSES, (batch,), generator=generator)
        nets: list[nn.Module] = [
            fa.networks.MLP(sizes, "relu"),
            fa.DFA(fa.networks.MLP(sizes, "relu")),
            fa.DFA(fa.networks.MLP(sizes, "relu"), recompute=True),
        ]
        bp_mb, dfa_mb, recompute_mb = (peak_mb(net, x, y) for net in nets)
        bp, dfa, recompute = interleaved(*(step(net, x, y) for net in nets), rounds=steps, warm_up=2)
        rows.append(
            {
                "width": width,
                "depth": depth,
                "batch": batch,
                "gradients_mb": round(sum(4 * p.numel() for p in nets[0].parameters()) / 2**20, 1),
                "backprop_mb": round(bp_mb, 1),
                "dfa_mb": round(dfa_mb, 1),
                "recompute_mb": round(recompute_mb, 1),
                "dfa_time_over_backprop": round(dfa / bp, 3),
                "recompute_time_over_backprop": round(recompute / bp, 3),
                "threads": torch.get_num_threads(),
            }
        )
    save("step_memory", rows)


if __name__ == "__main__":
    main()
