"""Models whose feedback is held as fewer numbers than F has entries, and the recipes that do so."""

from __future__ import annotations

from typing import Any

import torch
from tests.cases.small import left_by_backward
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign import feedback

CLASSES = 7


def convnet() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 6, 3, padding=1, stride=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    ).double()
    return filled(model, generator)


class Pooled(nn.Module):
    """Tokens of a sequence through two layers, and their mean to the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, CLASSES)
        self.one, self.two = nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.head(self.two(self.mix(self.one(self.embed(x)))).mean(1))
        return h


class Translator(nn.Module):
    """An encoder whose mean joins every token of a decoder with another length."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.decode = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.head = nn.Linear(6, CLASSES)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        h: Tensor = self.head(self.decode(target) + self.encode(source).mean(1, keepdim=True))
        return h


def filled(model: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator).mul_(0.5)
    return model


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mlp() -> nn.Module:
    return fa.networks.MLP([3, 8, 5, CLASSES]).double()


def case(kind: str) -> tuple[nn.Module, tuple[str, ...], tuple[Tensor, ...]]:
    """Return a model, its points and its inputs."""
    if kind == "images":
        return convnet(), ("1", "3"), (numbers(5, 2, 6, 6),)
    if kind == "pooled":
        return filled(Pooled().double(), torch.Generator().manual_seed(0)), ("one", "two"), (numbers(5, 4, 3),)
    if kind == "two lengths":
        model = filled(Translator().double(), torch.Generator().manual_seed(0))
        return model, ("encode", "decode"), (numbers(5, 4, 3), numbers(5, 2, 3))
    return mlp(), ("1", "3"), (numbers(5, 3),)


CASES: list[tuple[str, Any]] = [
    ("images", feedback.Channelwise()),
    ("images", feedback.Channelwise({"1": 4})),
    ("images", feedback.Shared()),
    ("images", feedback.Sketched(3)),
    ("images", feedback.Sketched(3, feedback.Channelwise())),
    ("pooled", feedback.Tokenwise()),
    ("pooled", feedback.Automatic()),
    ("pooled", feedback.Tokenwise(feedback.Shared())),
    ("pooled", feedback.Sketched(3, feedback.Tokenwise(feedback.Shared()))),
    ("two lengths", feedback.Tokenwise()),
    ("two lengths", feedback.Tokenwise(feedback.Shared())),
    ("two lengths", feedback.Sketched(3, feedback.Tokenwise())),
    ("dense", feedback.Shared()),
    ("dense", feedback.Sketched(CLASSES)),
    ("dense", feedback.Sketched(3, feedback.Shared(feedback.Uniform()))),
    ("dense", feedback.Automatic()),
]
NAMES = [f"{kind}-{recipe}" for kind, recipe in CASES]


def wrapped(rule: Any, kind: str, recipe: Any, **options: Any) -> tuple[Any, tuple[Tensor, ...], Any]:
    model, points, inputs = case(kind)
    net = rule(model, points, recipe, seed=3, example_input=inputs, **options)
    return net, inputs, step_of(inputs)


def step_of(inputs: tuple[Tensor, ...]) -> Any:
    def step(net: nn.Module) -> dict[str, Tensor]:
        net.zero_grad()
        output = net(*inputs).flatten(0, -2)
        functional.cross_entropy(output, torch.arange(len(output)) % CLASSES).backward()
        return left_by_backward(net)

    return step


def with_all_entries(net: Any, rule: Any, kind: str, **options: Any) -> Any:
    """Return the same model with the same feedback, of which all entries are held."""
    model, points, inputs = case(kind)
    return rule(model, points, feedback.FromArray(net.feedback_matrices), example_input=inputs, **options)
