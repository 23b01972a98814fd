"""Models in which each module takes what the module before it gave, and nothing else."""

from __future__ import annotations

from torch import nn


def is_chain(model: nn.Module) -> bool:
    """Return whether every way from one module of a model to the output leads through all modules that run later.

    So no skip connection goes around a module. Known are `nn.Sequential`, one within another as well, and torch's own
    modules without parts. Of any other model the answer is False, also where the model is a chain.
    """
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        return all(map(is_chain, model))
    return type(model).__module__.startswith("torch.nn.modules.") and next(model.children(), None) is None
