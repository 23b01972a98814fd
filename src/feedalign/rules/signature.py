"""The signature of a wrapped model's forward: that of the model inside.

Trainers read it, of the object or of its class, to choose the columns of a data set and to find the labels.
"""

from __future__ import annotations

from functools import cache, wraps
from types import new_class
from typing import Any

import torch
from torch import nn


@cache
def with_signature(rule: type[Any], kind: type[nn.Module], *, compiles: bool) -> type[Any]:
    """Return the class of a rule whose forward has the signature of a class of models.

    It is a subclass of the rule, with the rule's name. Its attribute `rule` is the rule itself. Unless it `compiles`,
    torch.compile leaves the forward, and all that runs within it, uncompiled.
    """

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return rule.forward(self, *args, **kwargs)

    if not compiles:
        forward = torch.compiler.disable(forward)
    names = {"forward": forward, "rule": rule, "__doc__": rule.__doc__, "__module__": rule.__module__}
    return new_class(rule.__name__, (rule,), exec_body=lambda namespace: namespace.update(names))
