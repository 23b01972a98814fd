"""Activation checkpointing changes no gradient of any rule."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.blocks import Residual
from tests.cases.small import FIXED_AND_LEARNED, assert_same, batch, gradients

import feedalign as fa
from feedalign.errors import PointsError


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
@pytest.mark.parametrize("save", ["blocks", "all"])
@pytest.mark.parametrize("inside", [False, True])
def test_activation_checkpointing_changes_no_gradient(rule: Any, save: str, inside: bool) -> None:
    """Also where points lie inside what is run again, and where its dropout must draw the same masks."""
    x, y = batch()
    points: Any = [f"blocks.{i}" for i in range(3)] + [f"blocks.{i}.1" for i in range(3)] * inside
    if issubclass(rule, fa.rules.SequentialRule):
        points = [f"blocks.{i}.{j}" for i in range(3) for j in ([0, 3] if inside else [3])][1:]
    found = []
    for kept in ("nothing", save):
        torch.manual_seed(0)
        net = rule(Residual(kept).double(), points)
        found.append((gradients(net, x, y), copy.deepcopy(net.feedback_matrices)))
    assert_same(found[1][0], found[0][0])
    assert_same(found[1][1], found[0][1])


@pytest.mark.parametrize("rule", [fa.DFA, fa.FA])
def test_points_in_a_reentrant_checkpoint_are_refused(rule: Any) -> None:
    """Its forward pass records no graph and its second run is none of the rule's, so the true gradient would pass."""
    x, _ = batch()
    net = rule(Residual("all", reentrant=True).double(), ["blocks.1.3"])
    with pytest.raises(PointsError, match=r"'blocks.1.3' ran without gradients.*use_reentrant=False"):
        net(x.requires_grad_())


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack])
def test_recomputing_goes_with_checkpointed_blocks(rule: Any) -> None:
    """Each of which is then a block of the rule, with its point where it ends."""
    x, y = batch()
    found = []
    for save, recompute in (("nothing", False), ("blocks", True)):
        torch.manual_seed(0)
        net = rule(Residual(save).double(), [f"blocks.{i}" for i in range(3)], recompute=recompute)
        found.append({**gradients(net, x, y), **net.feedback_matrices})
    assert_same(*found)
