"""What a model is made of, seen from outside: its outputs, its points, the blocks between them. Knows of no rule."""

from feedalign.anatomy import problems
from feedalign.anatomy.blocks import Block, convolution_between, features_last, is_chain, names_above, trace
from feedalign.anatomy.error_tap import Entries, Entry, ErrorTap
from feedalign.anatomy.jacobians import mean_jacobians
from feedalign.anatomy.masks import (
    InputMasks,
    Mask,
    PassMasks,
    real_features,
    real_rows,
    refuse_square_maps,
    without_padding,
)
from feedalign.anatomy.padding import find_padding
from feedalign.anatomy.padding_marks import UnnamedPadding
from feedalign.anatomy.points import check_points, name_problems, names_of, sample_axes
from feedalign.anatomy.problems import Problem
from feedalign.anatomy.tapping import check_all_ran, checked_place, hook_places, place_problems, seeing_places, tapped
from feedalign.anatomy.undisturbed import (
    State,
    copied,
    evaluating,
    same_modes,
    same_random_numbers,
    same_state,
    undisturbed,
)
from feedalign.anatomy.values import (
    activation_in,
    activation_of,
    arguments,
    detached,
    entries_of,
    exchange,
    is_computed_from,
    leaves_below,
    mapped,
    observing,
    one_fewer,
    operations_below,
    origin,
    recordable,
    tensors_in,
)
from feedalign.anatomy.weights import gathered, plain_copy, weight_matrices, weights_in_use

__all__ = [
    "Block",
    "Entries",
    "Entry",
    "ErrorTap",
    "InputMasks",
    "Mask",
    "PassMasks",
    "Problem",
    "State",
    "UnnamedPadding",
    "activation_in",
    "activation_of",
    "arguments",
    "check_all_ran",
    "check_points",
    "checked_place",
    "convolution_between",
    "copied",
    "detached",
    "entries_of",
    "evaluating",
    "exchange",
    "features_last",
    "find_padding",
    "gathered",
    "hook_places",
    "is_chain",
    "is_computed_from",
    "leaves_below",
    "mapped",
    "mean_jacobians",
    "name_problems",
    "names_above",
    "names_of",
    "observing",
    "one_fewer",
    "operations_below",
    "origin",
    "place_problems",
    "plain_copy",
    "problems",
    "real_features",
    "real_rows",
    "recordable",
    "refuse_square_maps",
    "same_modes",
    "same_random_numbers",
    "same_state",
    "sample_axes",
    "seeing_places",
    "tapped",
    "tensors_in",
    "trace",
    "undisturbed",
    "weight_matrices",
    "weights_in_use",
    "without_padding",
]
