"""A data set as the bytes of a NetCDF file, and back."""

from __future__ import annotations

import io

import h5netcdf
import xarray as xr
from xarray.backends import H5NetCDFStore


def to_bytes(dataset: xr.Dataset) -> bytes:
    """Return the NetCDF file of a data set, made in memory: HDF5 itself crashes Python where it meets a full disk.

    Only recent versions of xarray return such bytes from `Dataset.to_netcdf`; this way works with old versions too.
    """
    memory = io.BytesIO()
    with h5netcdf.File(memory, "w") as file:
        dataset.dump_to_store(H5NetCDFStore(file))
    return memory.getvalue()


def from_bytes(content: bytes) -> xr.Dataset:
    """Return the data set that `to_bytes` wrote, read whole; OSError if these bytes are no NetCDF file."""
    return xr.load_dataset(io.BytesIO(content), engine="h5netcdf")
