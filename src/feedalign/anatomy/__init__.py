"""What a model is made of, seen from outside: its outputs, its points, the blocks between them. Knows of no rule."""

from feedalign.anatomy import problems
from feedalign.anatomy.blocks import Block, convolution_between, trace
from feedalign.anatomy.hooks import evaluating, observing
from feedalign.anatomy.inputs import arguments, recordable
from feedalign.anatomy.jacobians import mean_jacobians
from feedalign.anatomy.outputs import (
    Entry,
    ErrorTap,
    activation_in,
    activation_of,
    detached,
    exchange,
    is_computed_from,
    leaves_below,
    mapped,
    tensors_in,
)
from feedalign.anatomy.points import axes_problem, check_points, name_problems, names_of
from feedalign.anatomy.problems import Problem
from feedalign.anatomy.undisturbed import Buffers, RandomNumbers, copied, same_random_numbers, undisturbed
from feedalign.anatomy.weights import computed_by_hooks, plain_copy, weight_matrices, weights_in_use

__all__ = [
    "Block",
    "Buffers",
    "Entry",
    "ErrorTap",
    "Problem",
    "RandomNumbers",
    "activation_in",
    "activation_of",
    "arguments",
    "axes_problem",
    "check_points",
    "computed_by_hooks",
    "convolution_between",
    "copied",
    "detached",
    "evaluating",
    "exchange",
    "is_computed_from",
    "leaves_below",
    "mapped",
    "mean_jacobians",
    "name_problems",
    "names_of",
    "observing",
    "plain_copy",
    "problems",
    "recordable",
    "same_random_numbers",
    "tensors_in",
    "trace",
    "undisturbed",
    "weight_matrices",
    "weights_in_use",
]
