"""The measurements of a run as a CSV file: one row for each measured step."""

from __future__ import annotations

import csv
import io

import xarray as xr


def csv_of(dataset: xr.Dataset) -> str:
    """Return the text of the file: steps, epochs, and every measured number by "quantity" or "quantity/layer"."""
    columns = {"step": dataset.step.values, "epoch": dataset.epoch.values}
    for name, values in dataset.data_vars.items():
        if values.dims == ("step",):
            columns[str(name)] = values.values
        elif values.dims == ("step", "layer"):
            columns |= {f"{name}/{layer}": values.sel(layer=layer).values for layer in dataset.layer.values}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue()
