"""Two outputs that differ in size and are correlated: the grid over which output statistics are varied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import sqrtm


def covariance(alpha: float, beta: float) -> NDArray[np.float64]:
    """Return the covariance [[1, α(1−β)], [α(1−β), α²]]: α is the size of the second output, 1 − β the correlation."""
    return np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])


def covariance_root(alpha: float, beta: float) -> NDArray[np.float64]:
    """Return the symmetric square root of the covariance, [2, 2]: it turns white outputs into those of (α, β)."""
    root: NDArray[np.float64] = np.real(sqrtm(covariance(alpha, beta)))
    return root


def with_pairs(dataset: xr.Dataset, pairs: Sequence[tuple[float, float]]) -> xr.Dataset:
    """Return a result with the pairs (α, β) as coordinates of its dimension `outputs`."""
    alphas, betas = ([pair[i] for pair in pairs] for i in (0, 1))
    return dataset.assign_coords(alpha=("outputs", alphas), beta=("outputs", betas))
