"""A job for the tutorial on several workers: one network, trained with one rule at one learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import xarray as xr
from torch.nn import functional

import feedalign as fa
from feedalign.lab.runs import Desk, Job


@dataclass(frozen=True)
class Digits(Job):
    """Train on the digits; the result is the test accuracy after each epoch."""

    kind: ClassVar[str] = "digits-learning-rate"
    rule: str
    lr: float
    seed: int
    epochs: int = 5

    def compute(self, desk: Desk) -> xr.Dataset:
        """Return the accuracies, by epoch."""
        digits = fa.lab.data.load("digits")
        train_x, test_x = fa.lab.data.prepare(digits)
        model = fa.networks.MLP([64, 100, 100, 10], seed=self.seed)
        net = fa.rules.get(self.rule)(model, seed=self.seed)
        optimizer = torch.optim.SGD(net.parameters(), lr=self.lr)
        order = torch.Generator().manual_seed(self.seed)
        accuracies = []
        for epoch in range(self.epochs):
            for batch in torch.randperm(len(train_x), generator=order).split(32):
                optimizer.zero_grad()
                functional.cross_entropy(net(train_x[batch]), digits.train_labels[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                accuracies.append(
                    float((net(test_x).argmax(1) == digits.test_labels).double().mean())
                )
            desk.progress(epoch + 1, self.epochs)
        return xr.Dataset({"accuracy": ("epoch", accuracies)}, {"epoch": range(1, self.epochs + 1)})
