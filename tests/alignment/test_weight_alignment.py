"""Weight alignment: one for weights made of the feedback, whatever the widths; undefined, with a reason, elsewhere."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, PointsError


def test_weights_made_of_the_feedback_have_cosine_one_at_unequal_widths() -> None:
    model: Any = fa.networks.MLP([5, 8, 6, 4, 3])
    net = fa.DFA(model)
    F1, F2, F3 = net.feedback_matrices.values()
    with torch.no_grad():
        model[2].weight.copy_(7 * F2 @ F1.T)
        model[4].weight.copy_(-2 * F3 @ F2.T)
        model[6].weight.copy_(0.1 * F3.T)
    measured = fa.weight_alignment(net)
    assert measured.layers == pytest.approx({"2": 1.0, "4": -1.0, "6": 1.0}, abs=1e-6)
    assert measured.undefined == {}


def test_total_is_the_cosine_of_all_layers_concatenated() -> None:
    model: Any = fa.networks.MLP([5, 8, 6, 3])
    net = fa.DFA(model)
    F1, F2 = (F.double() for F in net.feedback_matrices.values())
    weights = torch.cat([model[2].weight.detach().double().flatten(), model[4].weight.detach().double().flatten()])
    target = torch.cat([(F2 @ F1.T).flatten(), F2.T.flatten()])
    expected = float(weights @ target / weights.norm() / target.norm())
    assert fa.weight_alignment(net).total == pytest.approx(expected, abs=1e-12)


def test_an_ensemble_is_measured_network_by_network() -> None:
    ensemble = fa.networks.EnsembleMLP(3, [5, 8, 6, 3])
    together = fa.weight_alignment(fa.DFA(ensemble, seed=4))
    for i, state in enumerate(ensemble.state_dicts()):
        model: Any = fa.networks.MLP([5, 8, 6, 3])
        model.load_state_dict(state)
        alone = fa.weight_alignment(fa.DFA(model, seed=4))
        for name in alone.layers:
            assert float(together.per_network[name][i]) == pytest.approx(alone.layers[name], abs=1e-12)
    assert together.layers["2"] == pytest.approx(float(together.per_network["2"].mean()), abs=1e-12)


def test_of_a_convolution_it_is_that_of_the_unrolled_matrix() -> None:
    model: Any = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.Flatten(), nn.Linear(36, 3)
    )
    measured = fa.weight_alignment(fa.DFA(model, example_input=torch.zeros(1, 1, 8, 8)))
    F1, F2 = fa.DFA(copy.deepcopy(model), example_input=torch.zeros(1, 1, 8, 8)).feedback_matrices.values()
    W = fa.networks.unroll(model[2], (2, 6, 6)).detach().double()
    expected = functional.cosine_similarity(W.flatten(), (F2.double() @ F1.double().T).flatten(), dim=0)
    assert measured.layers["2"] == pytest.approx(float(expected), abs=1e-12)
    assert set(measured.layers) == {"2", "4"}
    assert measured.undefined == {}


def test_zero_feedback_leaves_a_convolution_without_an_angle() -> None:
    net = fa.DFA(fa.networks.ConvNet((1, 8, 8), (2, 2)), example_input=torch.zeros(1, 1, 8, 8))
    for matrix in net.feedback_matrices.values():
        matrix.zero_()
    assert math.isnan(fa.weight_alignment(net).layers["1.0"])


def test_a_pooled_convolution_is_undefined_and_the_dense_part_measured() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)
    )
    measured = fa.weight_alignment(fa.DFA(model, example_input=torch.zeros(1, 1, 8, 8)))
    assert set(measured.layers) == {"5"}
    assert "takes (2, 6, 6) to (2, 6, 6), but its points have (2, 6, 6) and (18,)" in measured.undefined["2"]


def test_a_convolution_in_one_dimension_is_undefined() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Conv1d(2, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    measured = fa.weight_alignment(fa.DFA(model, example_input=torch.zeros(1, 1, 8)))
    assert "no matrix between its points, nor a 2-D convolution" in measured.undefined["2"]


def test_two_linear_maps_in_a_block_are_undefined_and_nothing_is_nan() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Sequential(nn.Linear(8, 7), nn.Linear(7, 6)), nn.Linear(6, 3))
    measured = fa.weight_alignment(fa.DFA(model))
    assert measured.undefined == {"1.0, 1.1": "the block holds 2 weight matrices, the angle is defined for one"}
    assert set(measured.layers) == {"2"}


def test_a_network_without_any_such_layer_has_no_total() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Sequential(nn.Linear(8, 7), nn.Linear(7, 3)))
    assert math.isnan(fa.weight_alignment(fa.DFA(model)).total)


def test_undrawn_feedback_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(PointsError, match="the feedback is not drawn yet"):
        fa.weight_alignment(fa.DFA(model))


def test_a_model_without_a_rule_is_refused_by_both_measures() -> None:
    model: Any = fa.networks.MLP([5, 8, 3])
    with pytest.raises(ArgumentError, match="got a MLP, expected a model wrapped in a rule"):
        fa.weight_alignment(model)
    with pytest.raises(ArgumentError, match="got a MLP, expected a model wrapped in a rule"):
        fa.gradient_alignment(model, lambda o, t: o.sum(), torch.zeros(1, 5), None)
