"""Train wrapped models that `fully_shard` has sharded, in one of two processes. No test by itself.

Run: python -m tests.rules.sharded_processes RANK INIT_FILE OUT
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from tests.cases.processes import whole, work_and_save
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa

RULES: dict[str, Any] = {
    "DFA": fa.DFA,
    "ConditionedDFA": lambda model, **options: fa.ConditionedDFA(model, every=2, **options),
    "DirectKolenPollack": fa.DirectKolenPollack,
    "KolenPollack": fa.KolenPollack,
    "SignSymmetry": fa.SignSymmetry,
    "Frozen": fa.Frozen,
    "DFA, error inside": lambda model, **options: fa.DFA(model, error_at="3", **options),
    "DFA, error before the readout": lambda model, **options: fa.DFA(model, error_at="3.input", **options),
}
WHEN = ("before wrapping", "after wrapping")
CASES = [" | ".join(case) for case in [*product(RULES, WHEN, ["every block"]), *product(["DFA"], WHEN, ["the whole"])]]


def model() -> nn.Module:
    blocks = [nn.Sequential(nn.Linear(n, m), nn.Tanh()) for n, m in ((5, 8), (8, 6), (6, 6))]
    return nn.Sequential(*blocks, nn.Linear(6, 3)).double()


def trained(case: str, rank: int, world: int) -> dict[str, Tensor]:
    """Return weights and feedback after some steps; of one process alone, on the joined batch and without shards."""
    rule, when, what = case.split(" | ")
    torch.manual_seed(0)
    body: Any = model()

    def shard() -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (world,))
        for block in body if what == "every block" else ():
            fully_shard(block, mesh=mesh)
        fully_shard(body, mesh=mesh)

    if world > 1 and when == "before wrapping":
        shard()
    net = RULES[rule](body, seed=1)
    if world > 1 and when == "after wrapping":
        shard()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        x, y = (
            torch.randn(8, 5, generator=generator, dtype=torch.float64),
            torch.randint(3, (8,), generator=generator),
        )
        optimizer.zero_grad()
        functional.cross_entropy(net(x[rank::world]), y[rank::world]).backward()
        optimizer.step()
    return {name: whole(tensor) for name, tensor in net.state_dict().items() if isinstance(tensor, Tensor)}


if __name__ == "__main__":
    work_and_save(lambda rank, world: {case: trained(case, rank, world) for case in CASES})
