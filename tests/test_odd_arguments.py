"""Every public function of the theory, the geometry and the networks × each argument × odd values.

A call works, or raises one of the house's own errors. No error of numpy, scipy, torch or Python comes out, and no
warning.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.cases.odd import ODD

from feedalign import networks
from feedalign.errors import FeedalignError
from feedalign.geometry import Geometry
from feedalign.theory import convolution, linear, shallow

K, C, N = 2, 3, 4


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.setflags(write=False)
    return array


def start() -> shallow.OrderParameters:
    return shallow.OrderParameters(np.eye(K) / 2, np.zeros((K, K)), np.eye(K), np.array([0.5, -0.2]), np.ones(K))


def state() -> linear.State:
    rng = np.random.default_rng(0)
    return linear.State([rng.standard_normal((C, N)), np.eye(C)], [rng.standard_normal((5, C))], np.eye(C))


def geometry() -> Geometry:
    return Geometry((3, 4, 4), 4, padding=(1, 1))


def learning() -> dict[str, Any]:
    return {
        "start": start(), "feedback": [1.0, -1.0], "lr": 0.1, "times": [0.1], "activation": "erf", "noise_std": 0.1,
        "rule": "dfa", "lr_readout": 0.1, "batch_size": 1,
    }  # fmt: skip


def train() -> dict[str, Any]:
    return {"feedback": [np.ones((5, C))], "lr": 0.01, "conditioning": np.eye(C), "record": [0]}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def shape() -> dict[str, Any]:
    return {
        "in_shape": (3, 4, 4), "out_channels": 4, "kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1),
        "dilation": (1, 1), "groups": 1, "regions": (1, 1),
    }  # fmt: skip


def layer() -> torch.nn.Conv2d:
    return torch.nn.Conv2d(3, 4, 3, padding=1)


def sides() -> dict[str, Any]:
    return {"F_out": rng().standard_normal((64, C)), "F_in": rng().standard_normal((48, C))}


# Each function with arguments that work; a new set of them for every call.
CALLS: list[tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = [
    (shallow.OrderParameters, lambda: {name: getattr(start(), name) for name in "QRTvA"}),
    (
        shallow.OrderParameters.from_weights,
        lambda: {"w": np.ones((K, N)), "w_teacher": np.ones((3, N)), "v": [1.0, 2.0], "A": [1.0, 2.0, 3.0]},
    ),
    (start().generalisation_error, lambda: {"activation": "relu"}),
    (shallow.draw_readout, lambda: {"kind": "random", "units": 2, "rng": rng()}),
    (
        shallow.draw_start,
        lambda: {"A": [1.0, 2.0], "students": 2, "input_dim": 10, "rng": rng(), "w_std": 1.0, "v_std": 1.0},
    ),
    (shallow.draw_feedback, lambda: {"kind": "orthogonal", "start": start(), "rng": rng()}),
    (shallow.global_minima, lambda: {"A": [1.0, 2.0], "activation": "erf"}),
    (shallow.selected_solution, lambda: {"A": [1.0, 2.0], "F": [1.0, -1.0]}),
    (shallow.predicted_minimum, lambda: {"A": [1.0, 2.0], "F": [1.0, -0.5], "T": np.eye(2), "readout_rate": 1.0}),
    (shallow.can_recover, lambda: {"A": [1.0, 2.0], "F": [1.0, -1.0]}),
    (shallow.recovery_probability, lambda: {"K": 3, "M": 2}),
    (shallow.distances_to_minima, lambda: {"state": start(), "activation": "erf"}),
    (shallow.nearest_minimum, lambda: {"state": start(), "activation": "relu"}),
    (
        shallow.integrate,
        lambda: learning()
        | {"stop_at_error": 1e-3, "method": "RK45", "rtol": 1e-6, "atol": 1e-6, "max_step": 1.0, "max_seconds": 0.5},
    ),
    (
        shallow.simulate,
        lambda: learning()
        | {"input_dim": 10, "seed": 0, "seeds": [0, 1], "method": "reduced", "threads": 1, "progress": None},
    ),
    (
        linear.State,
        lambda: {name: getattr(state(), name) for name in ("alignment_matrices", "feedback", "conditioning")},
    ),
    (state().predict, lambda: {"x": np.ones((2, N))}),
    (state().gradient_alignment, lambda: {"x": np.ones((2, N)), "y": np.ones((2, C))}),
    (state().cosines, lambda: {"errors": np.ones((2, C))}),
    (state().predicted_gradient_alignment, lambda: {"error_covariance": np.eye(C)}),
    (state().stability_limit, lambda: {"x": np.eye(N)}),
    (
        linear.train,
        lambda: {"x": np.eye(N), "y": np.ones((N, C)), **train(), "epochs": 2, "batch_size": 2, "shuffle_seed": 0},
    ),
    (
        linear.population,
        lambda: {"cov_x": np.eye(N), "teacher": np.ones((C, N)), **train(), "steps": 2, "noise_std": 0.1},
    ),
    (
        linear.train_residual,
        lambda: {"x": np.eye(N), "y": np.ones((N, C)), "feedback": [np.ones((5, C))] * 2, "lr": 0.01, "steps": 2},
    ),
    (linear.conditioner, lambda: {"cov_yx": np.eye(C, N), "leave_out": 1e-9}),
    (linear.first_steps, lambda: {"cov_yx": np.eye(C, N), "feedback": [np.ones((5, C))], "conditioning": np.eye(C)}),
    (linear.residuals, lambda: {"weights": [np.ones((5, N)), np.ones((C, 5))], "feedback": [np.ones((5, C))]}),
    (linear.draw_feedback, lambda: {"widths": [4, 5], "outputs": C, "rng": rng(), "kind": "orthonormal"}),
    (Geometry, shape),
    (Geometry.of, lambda: {"layer": layer(), "in_shape": (3, 4, 4), "regions": (1, 1)}),
    (geometry().kernels, lambda: {"kernel": np.ones((4, 3, 3, 3))}),
    (convolution.alignability, lambda: sides() | shape()),
    (convolution.best_match, lambda: sides() | {"geometry": geometry()}),
    (convolution.nearest_kernel, lambda: {"left": np.ones((64, 2)), "right": np.ones((48, 2)), "geometry": geometry()}),
    (convolution.inner_products, lambda: {"kernel": np.ones((4, 3, 3, 3))} | sides() | {"geometry": geometry()}),
    (
        convolution.channel_products,
        lambda: {"kernel": np.ones((4, 3, 3, 3)), "product": np.ones((4, 3)), "geometry": geometry()},
    ),
    (convolution.random_estimate, lambda: {"geometry": geometry(), "outputs": C}),
    (convolution.channelwise_estimate, lambda: {"geometry": geometry()}),
    (convolution.unrolled, lambda: {"kernel": np.ones((4, 3, 3, 3)), "geometry": geometry()}),
    (convolution.optimal_feedback, lambda: {"geometries": [geometry()], "outputs": 2, "rng": rng()}),
    (convolution.mask_feedback, lambda: {"geometries": [geometry()], "outputs": 2, "rng": rng()}),
    (
        convolution.weight_feedback,
        lambda: {"kernels": [rng().standard_normal((4, 3, 3, 3))], "geometries": [geometry()], "outputs": 2},
    ),
    (networks.MLP, lambda: {"sizes": [4, 3, 2], "activation": "tanh", "bias": True, "seed": 0}),
    (
        networks.EnsembleMLP,
        lambda: {"n_networks": 2, "sizes": [4, 3, 2], "activation": "tanh", "bias": True, "seeds": [0, 1]},
    ),
    (
        networks.ConvNet,
        lambda: {
            "in_shape": (3, 8, 8), "channels": [4, 4], "classes": 2, "kernel_size": 3, "stride": 1, "pool": "none",
            "head": "flatten", "batch_norm": True, "activation": "relu", "seed": 0,
        },
    ),
    (
        networks.Transformer,
        lambda: {
            "vocabulary": 5, "outputs": 5, "width": 8, "blocks": 1, "heads": 2, "context": 4, "causal": True,
            "norm": "post", "tied": True, "pool": "none", "bias": True, "dropout": 0.1, "seed": 0,
        },
    ),
    (networks.TiledConv2d, lambda: {"convolution": layer(), "in_shape": (3, 4, 4), "regions": 2}),
    (networks.UnrolledConv2d, lambda: {"convolution": layer(), "in_shape": (3, 4, 4)}),
    (networks.unroll, lambda: {"convolution": layer(), "in_shape": (3, 4, 4)}),
    (networks.roll, lambda: {"matrix": torch.ones(64, 48), "convolution": layer(), "in_shape": (3, 4, 4)}),
    (networks.dense, lambda: {"model": torch.nn.Sequential(layer()), "in_shape": (3, 4, 4)}),
    (
        networks.locally_connected,
        lambda: {"model": torch.nn.Sequential(layer()), "in_shape": (3, 4, 4), "regions": None},
    ),
]  # fmt: skip
NAMES = [function.__qualname__ for function, _ in CALLS]
# These are made by functions of the room, and take what the function has checked.
RESULTS = {
    shallow.Trajectory,
    shallow.Minimum,
    linear.Training,
    linear.ResidualTraining,
    convolution.Match,
    convolution.Offset,
}


def public_functions() -> Iterator[Any]:
    for room in (shallow, linear, convolution, networks):
        for name in room.__all__:
            value = getattr(room, name)
            if callable(value) and inspect.getmodule(value) is not None and not isinstance(value, type(list[int])):
                yield value


def test_no_public_function_and_none_of_its_arguments_is_left_out() -> None:
    called = {function for function, _ in CALLS}
    left_out = {value for value in public_functions() if inspect.isclass(value) or inspect.isfunction(value)}
    parts = {networks.EnsembleLinear}  # a layer that `EnsembleMLP` makes, which checks its arguments
    assert left_out - called - RESULTS - parts == set()
    for function, arguments in CALLS:
        assert set(inspect.signature(function).parameters) == set(arguments()), function


@pytest.mark.parametrize(("function", "arguments"), CALLS, ids=NAMES)
def test_an_odd_argument_works_or_is_refused_in_the_houses_words(
    function: Callable[..., Any], arguments: Callable[[], dict[str, Any]]
) -> None:
    function(**arguments())
    wrong = []
    for name in arguments():
        for words, make in ODD.items():
            try:
                function(**(arguments() | {name: make()}))
            except FeedalignError:
                continue
            except Exception as error:  # whatever it is, it is the fault that is looked for
                wrong.append(f"{name} = {words}: {type(error).__name__}: {error}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(("function", "arguments"), CALLS, ids=NAMES)
def test_arrays_that_cannot_be_written_to_work(
    function: Callable[..., Any], arguments: Callable[[], dict[str, Any]]
) -> None:
    given = {
        name: read_only(np.asarray(value, dtype=np.float64)) if name in ARRAYS else value
        for name, value in arguments().items()
    }
    function(**given)


ARRAYS = {
    "Q", "R", "T", "v", "A", "F", "w", "w_teacher", "times", "x", "y", "errors", "error_covariance", "cov_x", "teacher",
    "conditioning", "cov_yx", "kernel", "F_out", "F_in", "left", "right",
}  # fmt: skip
