"""How a batch is given to a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from feedalign.anatomy.outputs import mapped


@torch.inference_mode(False)
def recordable(value: Any) -> Any:
    """Return a value in which no Tensor was made in inference mode: autograd cannot use such Tensors."""
    return mapped(value, lambda tensor: tensor.clone() if tensor.is_inference() else tensor)


def arguments(model: nn.Module, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments, by position and by keyword, with which a model takes a batch.

    They can be used by autograd, also if the batch was made in inference mode.

    Args:
        model: the bare model, not wrapped in a rule.
        x: one input; a tuple of several; or a mapping from the names of the inputs, as tokenizers return it. A named
            tuple (such as a packed sequence) is one input. So is a mapping that does not fit the model's signature.
    """
    x = recordable(x)
    if type(x) is tuple:
        return x, {}
    if isinstance(x, Mapping) and all(isinstance(name, str) for name in x):
        try:
            inspect.signature(model.forward).bind(**x)
        except TypeError:
            return (x,), {}
        return (), dict(x)
    return (x,), {}
