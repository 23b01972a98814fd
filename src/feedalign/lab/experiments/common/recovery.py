"""Which share of backprop's gain over training the readout alone a rule reaches."""

from __future__ import annotations

import xarray as xr


def recovered(accuracy: xr.DataArray, readout: xr.DataArray, backprop: xr.DataArray) -> xr.DataArray:
    """Return (accuracy − readout) / (backprop − readout); not a number where backprop gains nothing.

    There is nothing to recover then, and a ratio of two losses would look like a success.
    """
    share: xr.DataArray = (accuracy - readout) / (backprop - readout).where(backprop > readout)
    return share
