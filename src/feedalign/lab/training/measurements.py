"""What is measured along a training, kept so that it survives an interruption."""

from __future__ import annotations

import io

import numpy as np
import torch
import xarray as xr
from torch import Tensor


class Measurements:
    """Data sets of one shape, one for each measured time.

    Args:
        dim: name of the dimension along which they are put together.
    """

    def __init__(self, dim: str) -> None:
        self.dim = dim
        self.parts: list[xr.Dataset] = []

    def add(self, measured: xr.Dataset) -> None:
        """Add what was measured at the next time."""
        self.parts.append(measured)

    def dataset(self) -> xr.Dataset:
        """Return everything that was measured, along `dim`."""
        return xr.concat(self.parts, self.dim)

    def packed(self) -> Tensor:
        """Return everything as bytes in a Tensor; an empty one if nothing was measured yet."""
        content = bytes(self.dataset().to_netcdf(engine="h5netcdf")) if self.parts else b""
        return torch.from_numpy(np.frombuffer(content, np.uint8).copy())

    def unpack(self, content: Tensor) -> None:
        """Take back what `packed` gave."""
        if content.numel():
            whole = xr.load_dataset(io.BytesIO(content.numpy().tobytes()), engine="h5netcdf")
            self.parts = [whole.isel({self.dim: i}) for i in range(whole.sizes[self.dim])]
