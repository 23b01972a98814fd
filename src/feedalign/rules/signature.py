"""The signature of a wrapped model's forward: that of the model inside.

Trainers read it, of the object or of its class, to choose the columns of a data set and to find the labels.
"""

from __future__ import annotations

from functools import cache, wraps
from types import new_class
from typing import Any

import torch
from torch import nn

# The compilers before torch 2.12 take compiled code for exported code (pytorch issue 176347), and under some rules what
# they compile computes other updates. So there a net in a rule runs uncompiled, also within code that is compiled.
COMPILES = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12)


@cache
def with_signature(rule: type[Any], kind: type[nn.Module]) -> type[Any]:
    """Return the class of a rule whose forward has the signature of a class of models.

    It is a subclass of the rule, with the rule's name. Its attribute `rule` is the rule itself.
    """

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return rule.forward(self, *args, **kwargs)

    if not COMPILES:
        forward = torch.compiler.disable(forward)
    names = {"forward": forward, "rule": rule, "__doc__": rule.__doc__, "__module__": rule.__module__}
    return new_class(rule.__name__, (rule,), exec_body=lambda namespace: namespace.update(names))
