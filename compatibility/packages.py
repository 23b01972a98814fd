"""Which packages are installed, and the import of torchvision beside a torch without CUDA."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from types import ModuleType

import torch

_KEPT: list[torch.library.Library] = []  # torch forgets what a library has declared when the library is gone


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def imported(name: str) -> ModuleType:
    """Return a module of the suite, after everything that the import of other packages needs."""
    _declare_operators_of_torchvision()
    return importlib.import_module(name)


def _declare_operators_of_torchvision() -> None:
    """Declare the two compiled operators that torchvision looks for when it is imported.

    The wheel of torchvision is compiled for torch with CUDA. Beside a torch without CUDA its compiled operators cannot
    be loaded and the import fails, although no model of this suite uses them (they serve detection).
    """
    if torch.version.cuda is not None or _KEPT:
        return
    _KEPT.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # declared already
            _KEPT[0].define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
