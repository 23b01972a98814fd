"""What is printed of one run: a table of its layers, and sentences on how it ended."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

# A loss that has grown by this factor has diverged, though its numbers are still finite, as bounded activations such as
# tanh keep them at any learning rate. `diagnose` has the same limit.
GROWN = 10.0


def diverged(dataset: xr.Dataset) -> bool:
    """Whether the loss left the finite numbers, or ended over ten times as large as it was before training."""
    return bool(dataset.diverged_at.notnull()) or _grown(dataset)


def _grown(dataset: xr.Dataset) -> bool:
    first, last = (float(dataset.train_loss.isel(step=i)) for i in (0, -1))
    return last > first + (GROWN - 1) * abs(first)


def table(dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Return the heading and one row for each layer: gradient and weight alignment at the last measured step."""
    end = dataset.isel(step=-1)
    nothing = xr.full_like(end.layer, np.nan, dtype=float)
    measured = [end.get(name, nothing) for name in ("gradient_alignment", "weight_alignment")]
    rows = [
        [str(layer), *(number(float(values.sel(layer=layer))) for values in measured)] for layer in end.layer.values
    ]
    return ["layer", "gradient alignment", "weight alignment"], rows


def summary(dataset: xr.Dataset) -> list[str]:
    """Say in sentences how the run ended."""
    end = dataset.isel(step=-1)
    when = f"after {float(end.epoch):.4g} epochs ({int(end.step)} steps)"
    lines = []
    if _grown(dataset):
        first, last = (float(dataset.train_loss.isel(step=i)) for i in (0, -1))
        lines.append(f"DIVERGED: the train loss went from {first:.4g} to {last:.4g}; give a smaller lr")
    if dataset.diverged_at.notnull():
        lines.append(
            f"DIVERGED: the loss is not finite after {int(dataset.diverged_at)} steps; give a smaller lr. The numbers "
            f"here were measured {when}"
        )
    lines.append(
        f"test accuracy {number(float(end.test_accuracy))}, train accuracy {number(float(end.train_accuracy))}, test "
        f"loss {float(end.test_loss):.4g}, train loss {float(end.train_loss):.4g} {when}"
    )
    if "noisy_accuracy" in end:
        clean, noisy = number(float(end.clean_accuracy)), number(float(end.noisy_accuracy))
        lines.append(f"train accuracy on clean labels {clean}, on labels drawn at random {noisy}")
    return lines


def number(value: float) -> str:
    """Return a number between −1 and 1 with three digits; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.3f}"
