"""Whether the transposed weight of a layer may be replaced: the class says what to expect, the output is the proof."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import copied, same_random_numbers
from feedalign.errors import PointsError
from feedalign.rules.sequential.known_layers import known_layer, known_names, registered
from feedalign.rules.sequential.linear_layer import LinearLayer
from feedalign.streams import torch_generator

# The same product, perhaps summed in another order, relative to the largest output. A weight that is rounded to 8 bits
# makes a difference of some 3e-3.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def refusal_of(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> PointsError | None:
    """Return why the transposed weight of a layer cannot be replaced; None if the layer computes what its formula says.

    Call it from a hook that runs behind all others, while the weights are there. The layer is in evaluation mode.
    `inputs` were given by position; `output` is that after the layer's hooks.
    """
    known = known_layer(layer)
    if known is None:
        return unknown(name, layer)
    if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
        return _refusal(name, layer, "it must take one Tensor, given by position, and return one Tensor")
    if others := [] if type(layer) is known.kind else _other_parameters(layer, known):
        return _refusal(name, layer, f"beside those of a {known.kind.__name__} it holds {', '.join(others)}")
    x = inputs[0].detach()
    runs = [(x, output, ", after its hooks,")]
    if "forward" in vars(layer) or type(layer).forward is not known.kind.forward or type(layer) in registered():
        # Noise, since a subclass may differ where these data do not show it, or in training only.
        noise = torch.randn(x.shape, generator=torch_generator(0, "check of a layer"), device="cpu")
        other = x + noise.to(x)
        rest = inputs[1:]
        runs += [
            (other, _again(layer, training, other, *rest), f" in {mode} mode")
            for training, mode in ((False, "evaluation"), (True, "training"))
        ]
    for given, found, when in runs:
        try:
            with torch.enable_grad():
                expected = known.formula(layer, given, known.weight_of(layer).detach(), known.bias_of(layer))
        except (RuntimeError, AttributeError, IndexError, TypeError) as error:
            return _refusal(name, layer, f"the formula of a {known.kind.__name__} fails on its input ({error})")
        if expected.requires_grad:
            return _refusal(name, layer, "its formula uses parameters other than the weight and the bias that it gets")
        if not _same(found, expected):
            what = f"what a {known.kind.__name__} with this weight and this bias gives"
            return _refusal(name, layer, f"its output{when} is not {what}")
    return None


def unknown(name: str, layer: nn.Module) -> PointsError:
    """Return the error that says that the class of a layer is not known."""
    return _refusal(name, layer, f"its class is none of the linear layers that are known ({known_names()})")


def _other_parameters(layer: nn.Module, known: LinearLayer) -> list[str]:
    """Return the names of parameters beside weight and bias, and what parametrization and pruning make them of."""
    made_of = [f"{held}{end}" for held in (known.weight, known.bias) for end in ("", "_orig", "_g", "_v")]
    names = [held for held, _ in layer.named_parameters()]
    return [held for held in names if held not in made_of and not held.startswith("parametrizations.")]


def _again(layer: nn.Module, training: bool, *inputs: Any) -> Any:
    """Return what a copy of the layer gives in a mode, without hooks; the layer and all random states stay as is."""
    with same_random_numbers(layer):
        return copied(layer).train(training).forward(*inputs)


def _same(found: Any, expected: Tensor) -> bool:
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    if found.is_meta or not found.numel():
        return True
    tolerance = max(TOLERANCE.get(found.dtype, 0.0), TOLERANCE.get(expected.dtype, 0.0))
    atol = tolerance * float(expected.abs().max())
    return torch.allclose(found.to(expected.dtype), expected, rtol=0, atol=atol, equal_nan=True)


def _refusal(name: str, layer: nn.Module, reason: str) -> PointsError:
    place = repr(name) if name else "the model itself"
    return PointsError(
        f"the transposed weight of {place}, a {type(layer).__name__}, cannot be replaced: {reason}. Give points= "
        f"without {place}, and the error passes it as in backprop; or, if the layer is linear in one weight, register "
        f"its class with feedalign.register_linear_layer({type(layer).__name__}, ...)"
    )
