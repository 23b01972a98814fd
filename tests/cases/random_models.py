"""Small modules drawn at random: layers, norms, residual sums, skips, shared and tied parts, parts that are dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

WIDTH, TOKENS, SIDE, CLASSES = 4, 3, 4, 3

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "prelu": nn.PReLU,
    "none": nn.Identity,
}
CONVOLUTIONS: dict[str, Callable[[bool], nn.Module]] = {
    "plain": lambda bias: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=bias),
    "grouped": lambda bias: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=2, bias=bias),
    "dilated": lambda bias: nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2, bias=bias),
    "circular": lambda bias: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="circular", bias=bias),
    "same": lambda bias: nn.Conv2d(WIDTH, WIDTH, (1, 3), padding="same", bias=bias),
    "reflected": lambda bias: nn.Conv2d(WIDTH, WIDTH, 3, padding="same", padding_mode="reflect", bias=bias),
    "transposed": lambda bias: nn.ConvTranspose2d(WIDTH, WIDTH, 3, padding=1, bias=bias),
    "strided and back": lambda bias: nn.Sequential(
        nn.Conv2d(WIDTH, WIDTH, 2, stride=2, bias=bias), nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2, bias=bias)
    ),
}


class Mix(nn.Module):
    """Tokens that look at one another, without a parameter."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.softmax(h @ h.mT, -1) @ h


POOLS: dict[str, Callable[[], nn.Module]] = {
    "vector": nn.Identity,
    "tokens": Mix,
    "image": lambda: nn.AvgPool2d(3, stride=1, padding=1),
}


@dataclass(frozen=True)
class Part:
    """One part of a random model; after each part stands an `nn.Identity` that may be a point.

    Attributes:
        kind: "layer"; "pool"; "again", an earlier part used once more; or "tied", a layer with an earlier one's weight.
        of: which of the earlier parts, for "again" and "tied".
        skip: how many parts further down an activation is added; 0 for none.
        residual: whether the part's input is added.
        dropped: whether the part is left out half of the time in training, as in stochastic depth.
    """

    kind: str
    of: int
    convolution: str
    norm: str
    activation: str
    bias: bool
    dropout: bool
    skip: int
    residual: bool
    dropped: bool


@dataclass(frozen=True)
class Spec:
    """A random model, its points, and what goes in and comes out."""

    form: str  # of the activations: "vector", "tokens" or "image"
    parts: tuple[Part, ...]
    points: tuple[int, ...]
    inputs: str  # "one", "two" or "keywords"
    returns: str  # "tensor", "dict" or "tuple"; the last two with a second head
    pooled: bool  # of tokens: one output for all tokens
    frozen: int | None  # the part that does not learn
    n: int
    reduction: str
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"marks.{i}" for i in self.points)

    @property
    def entry(self) -> Any:
        return {"tensor": None, "dict": "logits", "tuple": 1}[self.returns]


parts = st.builds(
    Part,
    kind=st.sampled_from(["layer", "layer", "layer", "pool", "again", "tied"]),
    of=st.integers(0, 3),
    convolution=st.sampled_from(sorted(CONVOLUTIONS)),
    norm=st.sampled_from(["none", "none", "batch", "layer", "group"]),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    bias=st.booleans(),
    dropout=st.booleans(),
    skip=st.integers(0, 2),
    residual=st.booleans(),
    dropped=st.sampled_from([False, False, True]),
)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    chosen = tuple(draw(st.lists(parts, min_size=1, max_size=4)))
    points = draw(st.sets(st.integers(0, len(chosen) - 1), min_size=1))
    return Spec(
        form=draw(st.sampled_from(["vector", "tokens", "image"])),
        parts=chosen,
        points=tuple(sorted(points)),
        inputs=draw(st.sampled_from(["one", "one", "two", "keywords"])),
        returns=draw(st.sampled_from(["tensor", "tensor", "dict", "tuple"])),
        pooled=draw(st.booleans()),
        frozen=draw(st.none() | st.integers(0, len(chosen) - 1)),
        n=draw(st.integers(3, 4)),
        reduction=draw(st.sampled_from(["mean", "sum"])),
        seed=draw(st.integers(0, 99)),
    )


class Random(nn.Module):
    """The model of a `Spec`."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = _layer(spec.form, "plain", True)
        self.stem_of_other = _layer(spec.form, "plain", True) if spec.inputs != "one" else None
        self.place = nn.Parameter(torch.randn(1, TOKENS, WIDTH)) if spec.form == "tokens" else None
        self.bodies, self.marks, self.uses = nn.ModuleList(), nn.ModuleList(), list[int]()
        for part in spec.parts:
            self.marks.append(nn.Identity())
            if part.kind == "again" and self.uses:
                self.uses.append(self.uses[part.of % len(self.uses)])
                continue
            self.bodies.append(_body(spec.form, part))
            self.uses.append(len(self.bodies) - 1)
            if part.kind == "tied":
                self._tie(part.of)
        if spec.frozen is not None:
            self.bodies[self.uses[spec.frozen]].requires_grad_(False)
        features = {"vector": WIDTH, "tokens": WIDTH, "image": WIDTH * SIDE * SIDE}[spec.form]
        self.readout = nn.Linear(features, CLASSES)
        self.other = nn.Linear(features, 2) if spec.returns != "tensor" else None

    def _tie(self, of: int) -> None:
        last: Any = self.bodies[-1]
        other: Any = self.bodies[of % len(self.bodies)]
        one, two = (getattr(body[0], "weight", None) for body in (other, last))
        if one is not None and two is not None and one.shape == two.shape:
            last[0].weight = one

    def forward(self, a: Tensor, b: Tensor | None = None) -> Any:
        h = self.stem(a)
        if b is not None and self.stem_of_other is not None:
            h = h + self.stem_of_other(b)
        if self.place is not None:
            h = h + self.place
        behind: list[Tensor] = [h]
        for part, mark, use in zip(self.spec.parts, self.marks, self.uses, strict=True):
            if part.dropped and self.training and torch.rand(()) < 0.5:
                continue
            new = self.bodies[use](h)
            new = new + h if part.residual else new
            if part.skip and part.skip < len(behind):
                new = new + behind[-1 - part.skip]
            h = mark(new)
            behind.append(h)
        h = h.flatten(1) if self.spec.form == "image" else h.mean(1) if self.spec.pooled and h.ndim == 3 else h
        logits = self.readout(h)
        if self.other is None:
            return logits
        other = self.other(h)
        return {"logits": logits, "other": other} if self.spec.returns == "dict" else (other, logits)


def _layer(form: str, convolution: str, bias: bool) -> nn.Module:
    return CONVOLUTIONS[convolution](bias) if form == "image" else nn.Linear(WIDTH, WIDTH, bias=bias)


def _body(form: str, part: Part) -> nn.Sequential:
    activation = ACTIVATIONS[part.activation]()
    if part.kind == "pool":
        return nn.Sequential(POOLS[form](), nn.Identity() if getattr(activation, "inplace", False) else activation)
    layer = _layer(form, part.convolution, part.bias)
    return nn.Sequential(layer, _norm(form, part.norm), activation, nn.Dropout(0.3 if part.dropout else 0.0))


def _norm(form: str, kind: str) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if form == "tokens" or kind == "layer":  # the axis of the channels is not the second one of tokens
        return nn.LayerNorm((WIDTH, SIDE, SIDE) if form == "image" else WIDTH)
    if kind == "group":
        return nn.GroupNorm(2, WIDTH)
    return nn.BatchNorm2d(WIDTH) if form == "image" else nn.BatchNorm1d(WIDTH)


def batch_of(spec: Spec) -> tuple[Any, Tensor]:
    """Return inputs and labels."""
    generator = torch.Generator().manual_seed(spec.seed)
    shape = {"vector": (WIDTH,), "tokens": (TOKENS, WIDTH), "image": (WIDTH, SIDE, SIDE)}[spec.form]
    a, b = (torch.randn(spec.n, *shape, generator=generator, dtype=torch.float64) for _ in "ab")
    labels = (spec.n, TOKENS) if spec.form == "tokens" and not spec.pooled else (spec.n,)
    y = torch.randint(CLASSES, labels, generator=generator)
    return {"one": a, "two": (a, b), "keywords": {"a": a, "b": b}}[spec.inputs], y


def loss_of(spec: Spec) -> Callable[[Any, Tensor], Tensor]:
    """Return the loss: of the logits, and of the second head where there is one."""

    def loss(output: Any, y: Tensor) -> Tensor:
        logits = output if spec.entry is None else output[spec.entry]
        found = functional.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction=spec.reduction)
        if spec.entry is not None:
            found = found + output["other" if spec.returns == "dict" else 0].square().mean()
        return found

    return loss


def model_of(spec: Spec) -> Random:
    """Return the model in float64, in training mode."""
    with torch.random.fork_rng([]):
        torch.manual_seed(spec.seed)
        return Random(spec).double()
