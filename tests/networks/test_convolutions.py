"""Convolutional nets, what they unroll to, and the same nets without sharing and without sparsity."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from feedalign.errors import ArgumentError
from feedalign.networks import ConvNet, TiledConv2d, UnrolledConv2d, dense, locally_connected, roll, unroll
from feedalign.rules import DFA

IN_SHAPE = (4, 7, 8)
CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2},
    {"kernel_size": 5, "stride": 3, "padding": 2, "groups": 4, "bias": False},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": (1, 8), "padding": "valid"},
]
every_convolution = pytest.mark.parametrize("options", CONVOLUTIONS, ids=range(len(CONVOLUTIONS)))


def convolution(options: dict[str, Any], seed: int = 0) -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Conv2d(IN_SHAPE[0], 8, **options).double()


def images(count: int = 3, shape: tuple[int, ...] = IN_SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_convolution
def test_the_unrolled_matrix_does_what_the_convolution_does(options: dict[str, Any]) -> None:
    layer = convolution({**options, "bias": False})
    x = images()
    torch.testing.assert_close(x.flatten(1) @ unroll(layer, IN_SHAPE).T, layer(x).flatten(1), rtol=0, atol=1e-12)


@every_convolution
def test_rolling_up_is_the_way_back_and_a_projection(options: dict[str, Any]) -> None:
    layer = convolution(options)
    torch.testing.assert_close(roll(unroll(layer, IN_SHAPE), layer, IN_SHAPE), layer.weight, rtol=0, atol=1e-12)
    matrix = torch.randn(unroll(layer, IN_SHAPE).shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nearest = copy.deepcopy(layer)
    nearest.weight.data = roll(matrix, layer, IN_SHAPE)
    left_over = matrix - unroll(nearest, IN_SHAPE)
    # What is left of it is orthogonal to every convolution, in particular to this one.
    assert (left_over * unroll(layer, IN_SHAPE)).sum().abs() < 1e-10


def test_a_tap_that_only_ever_reads_padding_is_zero() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1).double()
    kernel = roll(torch.ones(1, 1, dtype=torch.float64), layer, (1, 1, 1))
    expected = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    expected[0, 0, 1, 1] = 1
    assert torch.equal(kernel, expected)


def test_a_matrix_of_another_shape_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"matrix has shape \(3, 3\), expected \(448, 224\)"):
        roll(torch.zeros(3, 3), convolution(CONVOLUTIONS[0]), IN_SHAPE)


def test_padding_across_the_border_is_refused() -> None:
    with pytest.raises(ArgumentError, match="padding_mode='circular' connects across the border"):
        unroll(nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"), IN_SHAPE)


@every_convolution
def test_a_tiled_layer_begins_as_its_convolution_whatever_its_regions(options: dict[str, Any]) -> None:
    layer, x = convolution(options), images()
    height, width = layer(x).shape[2:]
    for regions in ((1, 1), (height, width), (height, 1), (1, width)):
        tiled = TiledConv2d(layer, IN_SHAPE, regions)
        assert len(tiled.weight) == math.prod(regions)
        torch.testing.assert_close(tiled(x), layer(x), rtol=0, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([(1, 1), (2, 1), (2, 3), (4, 6)]), st.booleans())
@settings(max_examples=15, deadline=None)
def test_each_region_has_a_kernel_of_its_own(seed: int, regions: tuple[int, int], bias: bool) -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=bias).double()
    tiled, x = TiledConv2d(layer, (2, 4, 6), regions), images(2, (2, 4, 6), seed)
    for parameter in tiled.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)).double()
    output = tiled(x)
    rows, columns = 4 // regions[0], 6 // regions[1]
    for region in range(math.prod(regions)):
        whole = functional.conv2d(x, tiled.weight[region], None if tiled.bias is None else tiled.bias[region], 1, 1)
        row, column = divmod(region, regions[1])
        here = (..., slice(row * rows, (row + 1) * rows), slice(column * columns, (column + 1) * columns))
        torch.testing.assert_close(output[here], whole[here], rtol=0, atol=1e-12)


def test_the_gradient_of_a_shared_kernel_is_the_sum_of_the_gradients_of_its_copies() -> None:
    layer, x = convolution(CONVOLUTIONS[0]), images()
    tiled = TiledConv2d(layer, IN_SHAPE, (7, 8))
    for module in (layer, tiled):
        module(x).square().sum().backward()
    assert tiled.weight.grad is not None
    assert layer.weight.grad is not None
    torch.testing.assert_close(tiled.weight.grad.sum(0), layer.weight.grad, rtol=0, atol=1e-10)


def test_regions_that_do_not_divide_the_output_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"regions=\(2, 2\) must divide the output's height and width \(7, 8\)"):
        TiledConv2d(convolution(CONVOLUTIONS[0]), IN_SHAPE, 2)


NETS: list[dict[str, Any]] = [
    {},
    {"pool": "max", "stride": 1, "batch_norm": False, "activation": "tanh"},
    {"pool": "average", "stride": (1, 2), "head": "global-average"},
]


@pytest.mark.parametrize("options", NETS, ids=range(len(NETS)))
def test_dense_and_locally_connected_nets_begin_as_the_convolutional_one(options: dict[str, Any]) -> None:
    net = ConvNet((3, 12, 12), (4, 6), 5, **options).double()
    x = images(6, (3, 12, 12))
    net(x)  # in training mode, so that batch-norm has statistics other than those it begins with
    net.eval()
    expected = net(x)
    others = [dense(net, (3, 12, 12)), *(locally_connected(net, (3, 12, 12), regions) for regions in (None, 1, 3))]
    for other in others:
        torch.testing.assert_close(other(x), expected, rtol=0, atol=1e-12)
        assert not any(isinstance(module, nn.Conv2d) for module in other.modules())
    assert any(isinstance(module, nn.Conv2d) for module in net.modules())
    assert all(not module.training for other in others for module in other.modules() if module is not other)


def test_in_single_precision_they_agree_to_1e_6() -> None:
    net = ConvNet((3, 16, 16), (8, 8)).eval()
    x = images(4, (3, 16, 16)).float()
    for other in (dense(net, (3, 16, 16)), locally_connected(net, (3, 16, 16))):
        torch.testing.assert_close(other(x), net(x), rtol=0, atol=1e-6)


def test_they_learn_on_their_own() -> None:
    net = ConvNet((3, 8, 8), (4, 4)).double()
    x, y = images(16, (3, 8, 8)), torch.arange(16) % 10
    for other in (dense(net, (3, 8, 8)), locally_connected(net, (3, 8, 8))):
        before = copy.deepcopy(net.state_dict())
        wrapped: Any = DFA(other)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        functional.cross_entropy(wrapped(x), y).backward()
        optimizer.step()
        layer: Any = other.get_submodule("1.0")
        if isinstance(layer, UnrolledConv2d):
            shared = copy.deepcopy(net[1][0])  # type: ignore[index]
            shared.weight.data = roll(layer.weight.detach(), shared, (4, 4, 4))
            assert not torch.allclose(unroll(shared, (4, 4, 4)), layer.weight, atol=1e-6)
        else:
            assert not torch.allclose(layer.weight[0], layer.weight[1], atol=1e-6)
        for name, value in net.state_dict().items():
            assert torch.equal(value, before[name])


def test_a_bare_convolution_unrolls_too() -> None:
    layer, x = convolution(CONVOLUTIONS[0]), images()
    torch.testing.assert_close(dense(layer, IN_SHAPE)(x), layer(x), rtol=0, atol=1e-12)


def test_a_model_without_a_convolution_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no Conv2d ran in this Sequential"):
        dense(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2))


def test_a_convolution_that_sees_two_shapes_is_refused() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    with pytest.raises(ArgumentError, match=r"'0' runs on inputs of \(3, 8, 8\) and of \(3, 4, 4\)"):
        locally_connected(nn.Sequential(layer, nn.MaxPool2d(2), layer), (3, 8, 8))


def test_a_net_has_its_points_where_channels_can_be_told() -> None:
    net = DFA(ConvNet((3, 16, 16), (8, 12), pool="average"), example_input=torch.zeros(1, 3, 16, 16))
    assert {block.point: block.shape for block in net.blocks} == {"0": (8, 4, 4), "1": (12, 1, 1), "": (10,)}


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    nets = [ConvNet(seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    weights = [net.state_dict()["1.0.weight"] for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].abs().max() <= 1 / math.sqrt(9 * 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, r"got channels=\[\] and kernel_size=3; give one block and an odd kernel"),
        ({"channels": (4, 0)}, r"channels\[1\] must be a whole number of at least 1, got 0"),
        ({"kernel_size": 2}, "kernel_size=2; give one block and an odd kernel"),
        ({"stride": (2, 2)}, "got 2 strides for 3 blocks"),
        ({"pool": "mean"}, "pool='mean' is unknown; expected one of none, average, max"),
        ({"head": "gap"}, "head='gap' is unknown; expected one of flatten, global-average"),
        ({"activation": "gelu"}, "activation='gelu' is unknown; expected one of tanh, relu, linear"),
        ({"in_shape": (3, 8, 8), "pool": "max"}, r"images of \(8, 8\) are pooled to nothing in 3 blocks"),
    ],
)
def test_a_net_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ConvNet(**options)
