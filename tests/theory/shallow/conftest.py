"""Settings that the tests of the shallow theory start from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from feedalign.theory import shallow

MakeStart = Callable[..., shallow.OrderParameters]


@pytest.fixture
def make_start() -> MakeStart:
    """Random order parameters of K students and M teachers, from weights of a finite network."""

    def make(K: int = 2, M: int = 2, scale: float = 0.3, seed: int = 0, N: int = 50) -> shallow.OrderParameters:
        rng = np.random.default_rng(seed)
        return shallow.OrderParameters.from_weights(
            w=scale * rng.standard_normal((K, N)),
            w_teacher=rng.standard_normal((M, N)),
            v=scale * rng.standard_normal(K),
            A=rng.standard_normal(M),
        )

    return make
