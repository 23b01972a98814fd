"""Train models with feedback of few numbers in one of two processes, each with half of a batch. No test by itself.

Run: python -m tests.rules.compact_processes RANK INIT_FILE OUT
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from tests.cases.processes import whole, work_and_save
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import feedalign as fa
from feedalign.feedback import Channelwise, Shared, Sketched, Tokenwise

CLASSES = 5
RULES: dict[str, Any] = {
    "DFA": fa.DFA,
    "ConditionedDFA": lambda *a, **k: fa.ConditionedDFA(*a, every=1, **k),
    "DirectKolenPollack": fa.DirectKolenPollack,
}
RECIPES: dict[str, tuple[str, Any]] = {
    "channelwise": ("images", Channelwise()),
    "sketched channelwise": ("images", Sketched(3, Channelwise())),
    "tokenwise": ("tokens", Tokenwise()),
    "shared tokenwise": ("tokens", Tokenwise(Shared())),
    "sketched shared tokenwise": ("tokens", Sketched(3, Tokenwise(Shared()))),
    "shared": ("dense", Shared()),
    "sketched": ("dense", Sketched(3)),
    "sketched shared": ("dense", Sketched(3, Shared())),
}
SHAPES = {"images": (2, 6, 6), "tokens": (4, 3), "dense": (3,)}
WAYS = ("DistributedDataParallel", "sharded, then wrapped", "wrapped, then sharded")
CASES = [" | ".join(case) for case in product(RULES, RECIPES, WAYS)]


def model(kind: str) -> nn.Module:
    """Return a network of two blocks, which are its points, and a readout."""
    if kind == "images":
        one, two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1, stride=2)
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)]
    else:
        one, two = nn.Linear(3, 4), nn.Linear(4, 6)  # type: ignore[assignment]
        head = [nn.Flatten(), nn.Linear(6 * (4 if kind == "tokens" else 1), CLASSES)]
    blocks = [nn.Sequential(one, nn.Tanh()), nn.Sequential(two, nn.Tanh()), nn.Sequential(*head)]
    net = nn.Sequential(*blocks).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=generator).mul_(0.5)
    return net


def batch(kind: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, *SHAPES[kind], generator=generator, dtype=torch.float64)
    return x, torch.randint(CLASSES, (8,), generator=generator)


def wrapped(rule: str, recipe: str, body: nn.Module | None = None, **options: Any) -> Any:
    kind, feedback = RECIPES[recipe]
    x, _ = batch(kind)
    return RULES[rule](
        model(kind) if body is None else body, ("0", "1"), feedback, seed=1, example_input=x[:2], **options
    )


def shard(body: Any, world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (world,))
    for block in body:
        fully_shard(block, mesh=mesh)
    fully_shard(body, mesh=mesh)


def trained(case: str, rank: int, world: int) -> dict[str, Tensor]:
    """Return weights, feedback and what is measured after some steps; of one process alone, on the joined batch."""
    rule, recipe, way = case.split(" | ")
    kind, _ = RECIPES[recipe]
    body = model(kind)
    if world > 1 and way == "sharded, then wrapped":
        shard(body, world)
    net = wrapped(rule, recipe, body)
    if world > 1 and way == "wrapped, then sharded":
        shard(body, world)
    run = DistributedDataParallel(net) if world > 1 and way == "DistributedDataParallel" else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        x, y = batch(kind, step)
        optimizer.zero_grad()
        functional.cross_entropy(run(x[rank::world]), y[rank::world]).backward()
        optimizer.step()
    state = {name: whole(tensor) for name, tensor in net.state_dict().items() if isinstance(tensor, Tensor)}
    measured = fa.conditioning(net, functional.cross_entropy, *batch(kind)).layers
    angles = {f"angle of {name}": torch.tensor(angle) for name, angle in fa.weight_alignment(net).layers.items()}
    return state | angles | {f"residual of {name}": torch.tensor(one.residual) for name, one in measured.items()}


if __name__ == "__main__":
    work_and_save(lambda rank, world: {case: trained(case, rank, world) for case in CASES})
