"""The signature of a wrapped model's forward: that of the model inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from torch import nn


@cache
def forward_like(kind: type[nn.Module]) -> Callable[..., Any]:
    """Return the wrapper's forward with the signature of a class of models, which trainers read."""

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return type(self).forward(self, *args, **kwargs)

    return forward
