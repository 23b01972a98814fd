"""What is diagnosed, and a digest of it, so that a result is taken from its folder only if nothing has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import copied
from feedalign.diagnosis import Batches, output_on
from feedalign.lab.own_code import got, take_in

PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is diagnosed.

    Attributes:
        name: for the text.
        model: wrapped in a rule or bare.
        loss_fn: scalar loss of (output, y).
        batches: pairs (x, y).
        points: names of the feedback points, or "auto".
        code: source files of the user's that decide what model and loss do.
    """

    name: str
    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batches: Any
    points: str | tuple[str, ...] = "auto"
    code: tuple[bytes, ...] = ()

    def digest(self, steps: int, samples: int) -> str:
        """Return a digest of this package, the user's code, the model with its weights, and the batches and losses.

        The batches are those that a diagnosis reads in one pass: of the steps, and of the samples looked at. Their
        losses are there because model and loss function may hold numbers that neither the code nor the weights show,
        such as class weights read from a file. Where a batch holds objects of unknown kinds, or something cannot be
        read, the digest is new every time.
        """
        digest = hashlib.sha256()
        take_in(digest, [*(file.read_bytes() for file in sorted(PACKAGE.rglob("*.py"))), *self.code])
        take_in(digest, [got(lambda: repr(self.model)), got(lambda: dict(self.model.state_dict()))])
        take_in(digest, [weight.requires_grad for weight in self.model.parameters()])
        twin = self.model
        with suppress(Exception):  # a model that cannot be copied is refused by `diagnose`, in words
            twin = copied(self.model).eval()
        seen = 0
        for number, (x, y) in enumerate(Batches(self.batches)):
            if number >= steps and seen >= samples:
                break
            seen += len(y) if isinstance(y, Tensor) and y.ndim else 1
            take_in(digest, [x, y, self._loss(twin, x, y)])
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def _loss(self, model: nn.Module, x: Any, y: Any) -> str:
        """Return the loss of a batch to all digits; what goes wrong here is told by `diagnose`, in words."""
        try:
            return repr(self.loss_fn(output_on(model, x), y).tolist())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's code raises
            return type(error).__name__
