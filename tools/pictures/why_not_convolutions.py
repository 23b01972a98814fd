"""A dense layer can take the shape of any matrix; the matrix of a convolution cannot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tools.pictures.canvas import Canvas

SIZE, SIDE = 12, 15.0


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(
        780, 290, "A dense layer has a free weight for each connection; a convolution has few, and they repeat"
    )
    rng = np.random.default_rng(3)
    asked = rng.standard_normal((SIZE, 2)) @ rng.standard_normal((2, SIZE))
    kernel = [np.mean(np.diagonal(asked, offset)) for offset in (-1, 0, 1)]  # the nearest convolution of three taps
    near = np.sum([weight * np.eye(SIZE, k=offset) for weight, offset in zip(kernel, (-1, 0, 1), strict=True)], axis=0)
    cosine = float((asked * near).sum() / np.linalg.norm(asked) / np.linalg.norm(near))
    panels = (
        ("what the feedback asks for", asked, ("a matrix made of", "random feedback")),
        ("a dense layer", asked, ("one free weight for each", "connection: cosine 1")),
        (
            "a convolution",
            near,
            (f"{len(kernel)} weights, repeated; the nearest", f"convolution has a cosine of {cosine:.2f}"),
        ),
    )
    for i, (title, matrix, says) in enumerate(panels):
        left = 40 + 260 * i
        canvas.text((left + SIZE * SIDE / 2, 18), title, size=15, bold=True)
        _matrix(canvas, (left, 38), matrix, near if i == 2 else None)
        canvas.lines((left + SIZE * SIDE / 2, 252), says, size=13, colour="muted")
        if i == 1:
            canvas.text((left - 40, 128), "=", size=26, colour="good")
        if i == 2:
            canvas.text((left - 40, 128), "≠", size=26, colour="error")
    return canvas


def _matrix(
    canvas: Canvas, corner: tuple[float, float], matrix: NDArray[np.float64], kept: NDArray[np.float64] | None
) -> None:
    """Draw entries as cells, dark where they are large; where there is no connection, draw an empty cell."""
    largest = np.abs(matrix).max()
    for (row, column), value in np.ndenumerate(matrix):
        at = (corner[0] + column * SIDE, corner[1] + row * SIDE)
        if kept is not None and abs(row - column) > 1:
            canvas.cell(at, SIDE - 1.5, "muted", 0.12)
        else:
            canvas.cell(at, SIDE - 1.5, "error" if value > 0 else "forward", max(0.1, abs(value) / largest))
