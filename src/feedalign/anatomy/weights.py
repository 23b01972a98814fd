"""The weight matrices of a module, as the module multiplies by them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm

from feedalign.anatomy.undisturbed import Module, copied, evaluating


def weight_matrices(module: nn.Module) -> list[Tensor]:
    """Return the matrices and kernels that the module itself multiplies by; its children and biases do not count."""
    return list(weights_in_use(module).values())


def weights_in_use(module: nn.Module) -> dict[str, Tensor]:
    """Return the same by name: that of the attribute from which the module's forward pass reads the weight.

    Some layers compute their weight anew in every pass: pruned ones (`torch.nn.utils.prune`), those with weight norm or
    spectral norm, and parametrized ones. Such a weight counts as it is for the numbers that the layer holds now, in
    evaluation mode. What the weight is computed from does not count.
    """
    if isinstance(module, parametrize.ParametrizationList):
        return {}
    held = dict(module.named_parameters(recurse=False)) | parametrized(module)
    if computed := computed_by_hooks(module):
        plain = plain_copy(module)
        held = {name: one for name, one in held.items() if not name.startswith(tuple(f"{each}_" for each in computed))}
        held |= {name: getattr(plain, name) for name in computed}
    # The biases of an ensemble have several axes too, so the number of axes alone does not tell a bias.
    return {name: tensor for name, tensor in held.items() if tensor.ndim >= 2 and not name.startswith("bias")}


def parametrized(module: nn.Module) -> dict[str, Tensor]:
    """Return the parametrized Tensors of a module by name, as they are in evaluation mode."""
    found = {}
    for name, parametrization in getattr(module, "parametrizations", {}).items():
        with evaluating(parametrization):
            found[name] = parametrization()
    return found


def computed_by_hooks(module: nn.Module) -> list[str]:
    """Return the attributes that a hook computes anew from parameters before every pass.

    Torch's own hooks keep the parameters under longer names: `weight_orig` for `weight`, or `weight_g` and `weight_v`.
    """
    parameters = dict(module.named_parameters(recurse=False))
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
        and any(key.startswith(f"{name}_") and one.shape == value.shape for key, one in parameters.items())
    ]


def plain_copy(layer: Module) -> Module:
    """Return a copy of a layer that holds as parameters, as they are now, the weights that the layer computes anew.

    A weight that another hook than torch's computes is a parameter as the last pass left it.
    """
    other = copied(layer).eval()
    if found := parametrized(other):
        # Not parametrize.remove_parametrizations, which would change the class that the copy shares with the layer.
        other.__class__ = type(other).__mro__[1]
        del other.parametrizations
        for name, tensor in found.items():
            other.register_parameter(name, nn.Parameter(tensor.detach().clone()))
    for name in computed_by_hooks(other):
        for remove in (prune.remove, remove_weight_norm, remove_spectral_norm):
            try:
                remove(other, name)
            except ValueError:  # the weight is not computed in this way
                continue
            break
        else:
            left = getattr(other, name)
            for key in [name, *(key for key, _ in other.named_parameters(recurse=False) if key.startswith(f"{name}_"))]:
                delattr(other, key)
            other.register_parameter(name, nn.Parameter(left.detach().clone()))
    return other


def gathered(parameter: Tensor) -> Tensor:
    """Return the whole of a parameter that `fully_shard` has sharded; another parameter as it is."""
    if not hasattr(parameter, "full_tensor"):  # not isinstance: to import the class takes seconds
        return parameter
    whole: Tensor = parameter.full_tensor()
    return whole
