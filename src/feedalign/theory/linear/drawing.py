"""Random feedback matrices; every draw comes from the generator it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from feedalign.checks import Array, one_of, random_generator, whole_number, whole_numbers
from feedalign.errors import ArgumentError

Kind = Literal["gaussian", "orthonormal"]


def draw_feedback(
    widths: Sequence[int], outputs: int, rng: np.random.Generator, kind: Kind = "gaussian"
) -> list[Array]:
    """Return random feedback matrices [n_l, C], one for each hidden width.

    Args:
        widths: n_1 to n_{L−1}.
        outputs: C.
        rng: where random numbers come from.
        kind: "gaussian" has entries N(0, 1/n_l), so that G_l is the identity up to fluctuations of 1/√n_l;
            "orthonormal" has orthonormal columns, G_l = I, and needs n_l ≥ C.

    Raises:
        ArgumentError: a size is no whole number of at least one, the kind is unknown, or a width is too small for
            orthonormal columns.
    """
    outputs = whole_number("outputs", outputs, 1)
    sizes = whole_numbers("widths", widths, 1)
    random_generator("rng", rng)
    one_of("kind", kind, get_args(Kind))
    if kind == "orthonormal" and min(sizes, default=outputs) < outputs:
        raise ArgumentError(f"{outputs} orthonormal columns need widths of at least {outputs}, got {min(sizes)}")
    drawn = [rng.standard_normal((n, outputs)) / math.sqrt(n) for n in sizes]
    return drawn if kind == "gaussian" else [np.linalg.qr(F)[0] for F in drawn]
