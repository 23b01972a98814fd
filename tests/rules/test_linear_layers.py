"""Which layers a sequential rule takes: those of known classes, and of them only those that compute what they say."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.small import ROUNDING
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, weight_norm

import feedalign as fa
from feedalign.errors import ArgumentError, PointsError

RULES: list[Any] = [fa.FA, fa.SignSymmetry, fa.KolenPollack]


def around(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 3))


def labelled(n: int = 7) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3


class InOut(nn.Module):
    """A linear layer whose weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(inputs, outputs, generator=torch.Generator().manual_seed(0)))
        self.shift = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel + self.shift


class Copies(nn.Module):
    """Two linear layers of which the outputs are averaged; both share one B."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, outputs, inputs, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,noi->bo", x, self.weight) / 2


def average(_layer: nn.Module, x: Tensor, weight: Tensor, _bias: Tensor | None) -> Tensor:
    return torch.einsum("bi,noi->bo", x, weight) / 2


fa.register_linear_layer(InOut, "kernel", bias="shift", transposed=True)
fa.register_linear_layer(Copies, copies=1, formula=average)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 4), 0.5))
        self.inner = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.tanh(self.inner(x))


def test_a_module_with_a_parameter_of_two_axes_is_no_layer() -> None:
    assert fa.FA(around(Scale())).points == ("2.inner", "4")


def test_the_first_module_with_parameters_has_nothing_below_it() -> None:
    assert fa.FA(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))).points == ("2",)
    normed = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    assert fa.FA(normed).points == ("1", "3")  # the norm learns from the error that layer 1 sends


def pruned() -> nn.Module:
    layer = nn.Linear(6, 4)
    prune.random_unstructured(layer, "weight", amount=0.5)
    return layer


def with_old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch has a newer one, and people still use this one
        layer: nn.Module = weight_norm(nn.Linear(6, 4))
    return layer


class Viewing(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.unsqueeze(0)).squeeze(0)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "[in, out]": lambda: InOut(6, 4),
    "copies": lambda: Copies(6, 4),
    "pruned": pruned,
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(6, 4)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(6, 4)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(6, 4)),
    "old weight norm": with_old_weight_norm,
    "same output by another forward": lambda: Viewing(6, 4),
    "without bias": lambda: nn.Linear(6, 4, bias=False),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LAYERS)
def test_every_gradient_is_the_reference(name: str, rule: Any) -> None:
    net = rule(around(LAYERS[name]()))
    assert net.points == ("2", "4")
    check = fa.check_rule(net, functional.cross_entropy, *labelled())
    assert check.worst < ROUNDING, check


@pytest.mark.parametrize("rule", RULES)
def test_layers_of_images_in_regions_and_unrolled(rule: Any) -> None:
    convolution = nn.Conv2d(2, 4, 3, padding=1)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), fa.networks.TiledConv2d(convolution, (2, 4, 4), 2), nn.Tanh(),
        fa.networks.UnrolledConv2d(nn.Conv2d(4, 2, 3), (4, 4, 4)), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    x = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    net = rule(model, example_input=x)
    assert fa.check_rule(net, functional.cross_entropy, x, labelled(5)[1]).worst < ROUNDING
    # Four regions of four channels are sixteen outputs, each of 2 · 3 · 3 inputs.
    sizes = {name: tuple(B.shape) for name, B in net.feedback_matrices.items()}
    assert sizes == {"2": (18, 16), "4": (64, 8), "7": (8, 3)}


def test_a_weight_stored_the_other_way_is_the_same_layer() -> None:
    """A layer [in, out] and a Linear with the transposed weight learn the same under the same B."""
    layer, (x, y) = InOut(6, 4), labelled()
    same = nn.Linear(6, 4)
    with torch.no_grad():
        same.weight.copy_(layer.kernel.T)
        same.bias.copy_(layer.shift)
    one = around(layer)
    other = copy.deepcopy(one)
    other[2] = same
    found = []
    for model in (one, other):
        net = fa.FA(model, seed=3)
        functional.cross_entropy(net(x), y).backward()
        found.append((net.feedback_matrices["2"], model.get_parameter("0.weight").grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


class Adapter(nn.Linear):
    """As low-rank adapters are: at first the output is that of a Linear."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.ones(2, inputs)), nn.Parameter(torch.zeros(outputs, 2))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input @ self.down.T @ self.up.T


class Noisy(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        noise = torch.randn_like(self.weight) if self.training else 0
        return functional.linear(input, self.weight + noise, self.bias)


class Rounded(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        step = self.weight.detach().abs().max() / 127
        return functional.linear(input, (self.weight / step).round() * step, self.bias)


class Squared(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight**2, self.bias)


def hooked(inputs: int, outputs: int) -> nn.Module:
    layer = nn.Linear(inputs, outputs)
    layer.register_forward_hook(lambda _layer, _inputs, output: 2 * output)
    return layer


REFUSED: list[tuple[Any, str]] = [
    (Adapter, "'2', a Adapter, .* beside those of a Linear it holds down, up"),
    (Noisy, "'2', a Noisy, .* its output in training mode is not what a Linear with this weight and this bias gives"),
    (Rounded, "'2', a Rounded, .* its output"),
    (Squared, "'2', a Squared, .* its output"),
    (hooked, "'2', a Linear, .* its output, after its hooks, is not"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_a_layer_that_is_not_simply_its_formula_is_refused(make: Any, message: str) -> None:
    model = around(make(6, 4))
    random = torch.get_rng_state()
    with pytest.raises(PointsError, match=f"{message}.*register its class with feedalign.register_linear_layer"):
        fa.FA(model, example_input=labelled()[0])
    assert torch.equal(torch.get_rng_state(), random)
    assert fa.FA(model, points=("4",)).points == ("4",)


def test_a_formula_must_use_no_other_parameter() -> None:
    class Gained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.gain = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * functional.linear(x, self.weight)

    def live(layer: Any, x: Tensor, weight: Tensor, _bias: Tensor | None) -> Tensor:
        found: Tensor = layer.gain * functional.linear(x, weight)
        return found

    def constant(layer: Any, x: Tensor, weight: Tensor, _bias: Tensor | None) -> Tensor:
        found: Tensor = layer.gain.detach() * functional.linear(x, weight)
        return found

    fa.register_linear_layer(Gained, formula=live)
    with pytest.raises(PointsError, match="its formula uses parameters other than the weight and the bias"):
        fa.FA(around(Gained()), example_input=labelled()[0])
    fa.register_linear_layer(Gained, formula=constant)
    assert fa.check_rule(fa.FA(around(Gained())), functional.cross_entropy, *labelled()).worst < ROUNDING


def test_what_is_registered_is_checked() -> None:
    with pytest.raises(ArgumentError, match=r"kind must be a class derived from torch\.nn\.Module, got .*give type"):
        fa.register_linear_layer(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="weight must be the name of an attribute of the layer, got 3"):
        fa.register_linear_layer(InOut, 3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="transposed must be True or False, got 1"):
        fa.register_linear_layer(InOut, transposed=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="copies must be a whole number of at least 0, got -1"):
        fa.register_linear_layer(InOut, copies=-1)
    with pytest.raises(ArgumentError, match="formula must be a function"):
        fa.register_linear_layer(InOut, formula=3)  # type: ignore[arg-type]


def test_a_class_that_is_registered_with_the_wrong_formula_is_refused() -> None:
    class Turned(InOut):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    fa.register_linear_layer(Turned, "kernel", bias="shift", transposed=True)
    with pytest.raises(
        PointsError, match=r"'2', a Turned, .* is not what a Turned with this weight and this bias gives"
    ):
        fa.FA(around(Turned(6, 4)), example_input=labelled()[0])


def test_lazy_layers_are_layers_once_their_sizes_are_known() -> None:
    net = fa.FA(nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 3)))
    net(labelled()[0])
    assert net.points == ("2", "4")


class ComplexLayers(nn.Module):
    """A complex layer between real ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.readout = nn.Linear(5, 4), nn.Linear(4, 3)
        self.mid = nn.Linear(4, 4, dtype=torch.complex128)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.first(x))
        return self.readout(self.mid(h.to(self.mid.weight.dtype)).abs())


def test_fixed_feedback_passes_a_complex_layer() -> None:
    net = fa.FA(ComplexLayers().double())
    assert net.points == ("mid", "readout")
    x, y = labelled()
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12


@pytest.mark.parametrize("rule", [fa.KolenPollack, fa.SignSymmetry])
def test_feedback_that_depends_on_complex_weights_is_refused(rule: Any) -> None:
    x, _ = labelled()
    with pytest.raises(PointsError, match=f"the weight of 'mid' is complex, and {rule.__name__} has real feedback"):
        rule(ComplexLayers().double())(x.double())
    assert rule(ComplexLayers().double(), ("readout",))(x.double()).isfinite().all()
