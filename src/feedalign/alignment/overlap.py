"""Cross-seed overlap: whether runs that began apart end at the same weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import gathered
from feedalign.checks import refused, sequence
from feedalign.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class CrossSeedOverlap:
    """Mean cosine of the weights over all pairs of runs.

    Attributes:
        layers: the mean cosine of each weight matrix, by name.
        total: the mean cosine of all weight matrices concatenated.
        pairs: the cosines of single pairs, whose mean is `total`, in the order (0,1), (0,2), ..., (1,2), ...
    """

    layers: dict[str, float]
    total: float
    pairs: Tensor


@torch.no_grad()
def cross_seed_overlap(states: Sequence[nn.Module | Mapping[str, Any]]) -> CrossSeedOverlap:
    """Measure how alike the weights of several runs of one network are.

    Runs that differ in initialisation and data order only end with an overlap near zero where the loss leaves the
    weights free. They end with an overlap well above zero where the learning rule singles out one of the solutions.

    Floating-point matrices and kernels of two axes or more are compared. What is named `bias` is not compared. A
    pruned weight (`torch.nn.utils.prune`) counts as the product of its mask and its numbers, which is what the layer
    uses; the mask does not count. A parametrized weight counts as the parameters that it is computed from.

    A module tells its parameters from its buffers. So of a module exactly the parameters are compared; feedback
    matrices, running statistics and other buffers are not, and a parameter with two names counts once. The module may
    be wrapped in a rule, compiled, or part of another module.

    A `state_dict` does not tell parameters from buffers. Of a state everything is compared except what a rule keeps
    beside the model: the keys `feedback.<point>` and `gathered.<name>`, where keys `model.…` stand beside them. These
    keys may have any prefix, such as `_orig_mod.`, `module.` or `net.`. Other buffers of two axes or more are taken
    for weights, and a parameter with two names counts twice. Give the modules where that matters.

    Args:
        states: one network or one `state_dict` per run.

    Returns:
        Mean cosines by layer and in total, computed in float64 on the CPU. NaN where the weights of a run are all zero
        or not finite.

    Raises:
        ArgumentError: there are fewer than two runs; the runs do not hold the same weights; a run is neither a module
            nor a mapping from names to Tensors; or a weight is complex, sparse, quantized or on the meta device.
    Source: the degeneracy-breaking argument of Refinetti et al. (2021).
    """
    given = sequence("states", states, "networks or state_dicts")
    if len(given) < 2:
        raise ArgumentError(f"got {len(given)} network or state_dict, expected at least two runs to compare")
    weights = [_weights(f"states[{i}]", run) for i, run in enumerate(given)]
    for i, other in enumerate(weights):
        if not other:
            raise ArgumentError(f"run {i} holds no weight matrix; give the network, or its state_dict, after wrapping")
        if different := [n for n in {**weights[0], **other} if _shape(weights[0], n) != _shape(other, n)]:
            raise ArgumentError(
                f"run {i} does not hold the weights of run 0: {', '.join(different[:5])}"
                f"{f' and {len(different) - 5} more' if len(different) > 5 else ''}; {different[0]} has shape "
                f"{_shape(weights[0], different[0])} in run 0 and {_shape(other, different[0])} in run {i}; "
                "compare runs of one network, all of them wrapped in the same way"
            )
    products = {name: _products([run[name] for run in weights]) for name in weights[0]}
    pairs = _pair_cosines(torch.stack(list(products.values())).sum(0))
    return CrossSeedOverlap(
        layers={name: float(_pair_cosines(each).mean()) for name, each in products.items()},
        total=float(pairs.mean()),
        pairs=pairs,
    )


def _weights(what: str, run: Any) -> dict[str, Tensor]:
    """Return the weight matrices of a run by name, as its layers use them."""
    if isinstance(run, nn.Module):
        counted = {name for name, _ in run.named_parameters()}
        held = {**dict(run.named_parameters()), **dict(run.named_buffers())}
    else:
        held = _tensors(what, run)
        counted = held.keys() - _beside_the_model(held)
    weights = {}
    for name, tensor in held.items():
        own = name.rpartition(".")[2]
        if name not in counted or tensor.ndim < 2 or own.startswith("bias"):
            continue
        if name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in held:
            continue
        if fault := _fault(tensor):
            raise ArgumentError(f"the overlap is of real, dense weights, but {name!r} in {what} is {fault}")
        if tensor.is_floating_point():
            tensor = gathered(tensor)
            pruned = name.removesuffix("_orig")
            mask = held.get(f"{pruned}_mask") if pruned != name else None
            weights[name if mask is None else pruned] = tensor if mask is None else tensor * mask
    return weights


def _tensors(what: str, state: Any) -> dict[str, Tensor]:
    """Return what a `state_dict` holds, without extra state, which may be anything."""
    if not isinstance(state, Mapping):
        raise refused(what, "a network or a state_dict", state, "give a torch.nn.Module, or what state_dict() returns")
    held = {name: value for name, value in state.items() if not str(name).endswith("_extra_state")}
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ArgumentError(
                f"{what} holds a {type(value).__name__} at {name!r}, expected a state_dict of names and Tensors; of a "
                "checkpoint give the state_dict inside it, of a quantized network the one before quantization"
            )
    return held


# What a rule has beside `model`: a matrix for each point, whose name in the state holds no dot, and the statistics of
# ConditionedDFA. A matrix named `weight` is that of a layer whose name happens to be "feedback".
_BESIDE = re.compile(r"(?P<prefix>(?:.*\.)?)(?:feedback\.(?!weight$)[^.]+|gathered\.(?:moment|conditioner))")
_MODEL = re.compile(r"(?:^|(?<=\.))model\.")


def _beside_the_model(state: Mapping[str, Tensor]) -> set[str]:
    """Return the keys of feedback matrices and of gathered statistics: those that stand beside keys `model.…`."""
    wrapped = {name[: found.start()] for name in state for found in _MODEL.finditer(name)}
    matches = {name: _BESIDE.fullmatch(name) for name in state}
    return {name for name, match in matches.items() if match is not None and match["prefix"] in wrapped}


def _fault(tensor: Tensor) -> str | None:
    """Return why a Tensor cannot be compared, and what to do; None if it can."""
    if tensor.is_complex():
        return "complex; give its real and imaginary parts, torch.view_as_real(...)"
    if tensor.is_quantized:
        return "quantized; give it as numbers, with .dequantize()"
    if tensor.layout != torch.strided:
        return "sparse; give it with its zeros, .to_dense()"
    if tensor.is_meta:
        return "on the meta device, where a Tensor holds no numbers; load the weights first"
    return None


def _shape(run: Mapping[str, Tensor], name: str) -> list[int] | None:
    return list(run[name].shape) if name in run else None


def _products(tensors: list[Tensor]) -> Tensor:
    """Return the inner products of all pairs of runs, [runs, runs]."""
    flat = torch.stack([tensor.to("cpu", torch.float64).flatten() for tensor in tensors])  # [runs, numbers]
    return flat @ flat.T


def _pair_cosines(products: Tensor) -> Tensor:
    """Return the cosine of each pair of runs from their inner products."""
    lengths = products.diagonal().sqrt()
    pairs = torch.triu_indices(len(products), len(products), offset=1, device="cpu")
    return (products / torch.outer(lengths, lengths))[*pairs]
