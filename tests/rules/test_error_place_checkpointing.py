"""Activation checkpointing in a model that computes its loss inside, behind the module where the error is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.heads import TEXT, Causal, loss_entry
from tests.cases.places import DIRECT
from tests.cases.small import assert_same, left_by_backward
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import CheckpointError, checkpoint

import feedalign as fa


class Checkpointed(Causal):
    """The blocks, or the head and the loss too, are run again in the backward pass."""

    def __init__(self, save: str) -> None:
        super().__init__()
        self.save = save

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Any:
        if self.save == "all":
            return checkpoint(super().forward, tokens, labels, use_reentrant=False)
        h = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False) if self.save == "blocks" else block(h)
        top = checkpoint(self.top, h, labels, use_reentrant=False) if self.save == "top" else self.top(h, labels)
        return dict(zip(("loss", "logits"), top, strict=True))

    def top(self, h: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        logits = self.head(self.norm(h))
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), logits


@pytest.mark.parametrize("error_at", ["head", "head.input"])
@pytest.mark.parametrize(
    ("rule", "save"),
    [*((rule, "blocks") for rule in DIRECT), *((rule, save) for rule in DIRECT[:2] for save in ("top", "all"))],
)
def test_activation_checkpointing_changes_no_gradient(rule: Any, save: str, error_at: str) -> None:
    found = []
    for kept in ("nothing", save):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = Checkpointed(kept).double()
        net = rule(model, points=("blocks.0", "blocks.1"), error_at=error_at)
        for _ in range(2):
            net.zero_grad()
            loss_entry(net(**TEXT)).backward()
        found.append({**left_by_backward(net), **net.feedback_matrices})
    assert_same(*found)


@pytest.mark.parametrize("save", ["top", "all"])
def test_learned_feedback_does_not_go_with_a_checkpoint_around_the_place(save: str) -> None:
    """It keeps activations there, of which the second run knows nothing; torch says so."""
    net = fa.DirectKolenPollack(Checkpointed(save), points=("blocks.0", "blocks.1"), error_at="head")
    with pytest.raises(CheckpointError, match="A different number of tensors was saved"):
        loss_entry(net(**TEXT)).backward()
