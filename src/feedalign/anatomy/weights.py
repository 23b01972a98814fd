"""Which of a module's parameters are weight matrices."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

from feedalign.anatomy.hooks import evaluating


def weight_matrices(module: nn.Module) -> list[Tensor]:
    """Return the matrices and kernels that the module itself holds; those of its children and biases do not count.

    A parametrized weight counts as the weight it has in evaluation mode. What it is computed from does not count.
    """
    if isinstance(module, parametrize.ParametrizationList):
        return []
    held = dict(module.named_parameters(recurse=False))
    for name, parametrization in getattr(module, "parametrizations", {}).items():
        with evaluating(parametrization):
            held[name] = parametrization()
    # The biases of an ensemble have several axes too, so the number of axes alone does not tell a bias.
    return [tensor for name, tensor in held.items() if tensor.ndim >= 2 and not name.startswith("bias")]
