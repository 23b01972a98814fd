"""What is diagnosed, and a digest of it, so that a result is taken from its folder only if nothing has changed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feedalign.anatomy import copied
from feedalign.diagnosis import Batches, output_on

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
        _update(digest, [*(file.read_bytes() for file in sorted(PACKAGE.rglob("*.py"))), *self.code])
        _update(digest, [_got(lambda: repr(self.model)), _got(lambda: dict(self.model.state_dict()))])
        _update(digest, [weight.requires_grad for weight in self.model.parameters()])
        twin = self.model
        with suppress(Exception):  # a model that cannot be copied is refused by `diagnose`, in words
            twin = copied(self.model).eval()
        seen = 0
        for number, (x, y) in enumerate(Batches(self.batches)):
            if number >= steps and seen >= samples:
                break
            seen += len(y) if isinstance(y, Tensor) and y.ndim else 1
            _update(digest, [x, y, self._loss(twin, x, y)])
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


def _got(read: Callable[[], Any]) -> Any:
    """Return what is read; an object of no known kind, which makes the digest new, where that raises."""
    try:
        return read()
    except Exception:
        return object()


def _numbers(tensor: Tensor) -> Any:
    dense = tensor.detach().cpu()
    dense = dense if dense.layout == torch.strided else dense.to_dense()
    return dense.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy()


def _update(digest: Any, value: Any) -> None:
    """Take a value into a digest, with its kind, so that no two values look alike."""
    if isinstance(value, Tensor):
        # Tensors on the meta device have no numbers, and those of lazy modules not even a shape.
        _update(digest, _got(lambda: ["tensor", str(value.dtype), tuple(value.shape), _numbers(value)]))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"array {value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        _update(digest, ["mapping", list(value.items())])
    elif isinstance(value, tuple | list):
        digest.update(f"sequence {len(value)}".encode())
        for entry in value:
            _update(digest, entry)
    elif isinstance(value, str | bytes | int | float | complex | np.generic | None):
        digest.update(f"{type(value).__name__} {value!r} ".encode())
    else:
        digest.update(uuid.uuid4().bytes)
