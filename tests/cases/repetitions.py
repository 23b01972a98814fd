"""What counts the independent repetitions of every experiment: a field of the config, and a dimension of the result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from feedalign.lab.experiments import NAMES

# Of every experiment: the field of its config that counts independent repetitions, the dimension of these repetitions,
# and how the caption counts two of them.
REPETITIONS = {
    "two-phases": ("draws", "draw", "theory of 1 further draws"),
    "degeneracy-breaking": ("draws", "draw", "2 draws"),
    "relu-recovery": ("runs", "run", "2 runs"),
    "overparametrisation": ("runs", "run", "2 runs"),
    "shallow-variations": ("draws", "draw", "2 draws"),
    "alignment-matrices": ("draws", "draw", "2 draws"),
    "output-statistics": ("draws", "draw", "2 draws"),
    "conditioned-feedback": ("draws", "draw", "2 draws"),
    "layerwise": ("draws", "draw", "2 feedback draws"),
    "deep-dynamics": ("draws", "draw", "2 draws"),
    "width": ("draws", "draw", "2 draws"),
    "gradient-perturbation": ("draws", "draw", "2 draws"),
    "convolution": ("seeds", "seed", "2 seeds"),
    "sharing": ("seeds", "seed", "2 seeds"),
    "transformer": ("seeds", "seed", "2 seeds"),
}
# scope: all tests of one experiment run one after another, so that one process computes its results once.
every_experiment = pytest.mark.parametrize("name", NAMES, scope="session")


def generators() -> tuple[str, list[int], int, list[int]]:
    """Return the state of the global random number generators."""
    kind, keys, position, *_ = np.random.get_state(legacy=True)  # noqa: NPY002
    return str(kind), np.asarray(keys).tolist(), int(position), torch.get_rng_state().tolist()
