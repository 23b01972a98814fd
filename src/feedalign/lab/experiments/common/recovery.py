"""Which share of backprop's gain over a control a rule reaches; the control trains the readout alone, or the like."""

from __future__ import annotations

import xarray as xr


def recovered(reached: xr.DataArray, control: xr.DataArray, backprop: xr.DataArray) -> xr.DataArray:
    """Return (reached − control) / (backprop − control); not a number where backprop gains nothing.

    There is nothing to recover then, and a ratio of two losses would look like a success.
    """
    return (reached - control) / (backprop - control).where(backprop > control)
