"""Learned feedback of few stored numbers, written down slowly: what is next to the matrix with all its entries."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from feedalign.feedback import Form
from feedalign.rules import Wrapped


def nearest(net: Wrapped, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, of all matrices that the stored numbers can make, those next to given ones, in least squares.

    F = E S Rᵀ for each point. Points that have one S are fitted together: Σ EᵀE S RᵀR = Σ EᵀF R.

    Args:
        net: says how F of each point is made of what is stored.
        matrices: F by point, [features, outputs].
    """
    feedback = net.feedback
    found = dict(matrices)
    together: dict[str, list[str]] = {}
    for name, form in feedback.forms.items():
        if not form.is_full:
            together.setdefault(feedback.keys[name], []).append(name)
    for names in together.values():
        some = matrices[names[0]]
        stored_rows, outputs = feedback.forms[names[0]].stored_rows, some.shape[1]
        one = torch.eye(stored_rows, dtype=some.dtype, device=some.device)
        R = torch.eye(outputs, dtype=some.dtype, device=some.device) if feedback.sketch is None else feedback.sketch
        E = {name: feedback.forms[name].matrix(one, len(matrices[name]), None) for name in names}
        squares = torch.stack([E[name].T @ E[name] for name in names]).sum(0)
        products = torch.stack([E[name].T @ matrices[name] @ R for name in names]).sum(0)
        S = torch.linalg.solve(R.T @ R, torch.linalg.solve(squares, products), left=False)
        found |= {name: E[name] @ S @ R.T for name in names}
    return found


def of_size(form: Form, matrix: Tensor, features: int) -> Tensor:
    """Return a matrix [features drawn, ...] for samples of another size: its rows have more or fewer copies.

    A matrix without copies is returned as it is.
    """
    if form.copies == "tokens":
        return matrix[: form.rows].repeat(features // form.rows, 1)
    if form.copies == "positions":
        return matrix[:: len(matrix) // form.rows].repeat_interleave(features // form.rows, 0)
    return matrix


def mean_over_copies(form: Form, activity: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each feature, the mean over the features that have the same row of F, and whether any of them counts.

    Both are [entries, features]; `counted` is 1 where a feature counts, 0 where it is padding.
    """
    if form.copies == "none":
        return activity, counted
    one = torch.eye(form.rows, dtype=activity.dtype, device=activity.device)
    same = (form.matrix(one, activity.shape[1], None) != 0).to(activity.dtype)  # [features, rows]
    present = counted @ same
    mean = (activity * counted) @ same / present.clamp(min=1)
    return mean @ same.T, (present > 0).to(activity.dtype) @ same.T
