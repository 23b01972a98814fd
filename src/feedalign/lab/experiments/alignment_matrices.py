r"""Alignment matrices: the C × C matrices that training by DFA lives in, and what their conditioning decides.

Claim: from zero weights a deep linear network keeps W_l = F_l A_l F_{l−1}ᵀ exactly. The matrices set out along
A_2 ∝ Σ_yx Σ_xy; gradient alignment follows from them and the feedback's Gram matrices alone; and it is the lower the
worse they are conditioned.

Setting: full-batch DFA on samples of a noisy linear teacher, whose two outputs have covariance
[[1, α(1−β)], [α(1−β), α²]]; beside it the network itself, with its weights.

Source: Refinetti et al. (2021), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import sqrtm

from feedalign.lab.experiments.output_statistics import covariance
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.style import figure_style, layer_colours, letter
from feedalign.theory import linear

Array = NDArray[np.float64]

NAME = "alignment-matrices"
CLAIM = (
    "Training a deep linear network with direct feedback alignment from zero weights happens in alignment matrices of "
    "the size of the output; their conditioning decides how well its gradients align."
)


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        outputs: pairs (α, β).
        inputs: n_0.
        samples: of the training set.
        width: of the hidden layers.
        hidden: how many there are.
        noise_std: of the targets.
        lr: η, of the loss's mean over samples.
        steps: of full-batch descent.
        measurements: log-spaced in steps.
        draws: independent teachers, samples and feedback matrices.
        first_seed: of the draws.
    """

    outputs: tuple[tuple[float, float], ...] = ((1.0, 1.0), (0.5, 1.0), (0.2, 1.0), (1.0, 0.2), (0.2, 0.2))
    inputs: int = 20
    samples: int = 200
    width: int = 100
    hidden: int = 3
    noise_std: float = 0.1
    lr: float = 0.02
    steps: int = 600
    measurements: int = 25
    draws: int = 5
    first_seed: int = 0


CONFIGS = {"quick": Config(), "paper": Config(inputs=100, samples=1000, width=300, steps=3000, draws=20)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Train every draw of every pair (α, β) in its alignment matrices and in its weights."""
    times = np.unique(np.geomspace(5, config.steps, config.measurements).round().astype(int))
    cells = config.outputs
    shape = (len(cells), config.draws)
    by_layer = (*shape, len(times), config.hidden)
    measured, predicted = np.empty(by_layer), np.empty(by_layer)
    condition, loss = np.empty((*shape, len(times), config.hidden + 1)), np.empty((*shape, config.steps + 1))
    deviation, direction = np.empty(shape), np.empty(shape)
    for i, cell in enumerate(cells):
        for draw in range(config.draws):
            rng = np.random.default_rng([config.first_seed, draw])
            x = rng.standard_normal((config.samples, config.inputs))
            basis = np.linalg.qr(rng.standard_normal((config.inputs, 2)))[0]
            y = x @ basis @ np.real(sqrtm(covariance(*cell)))
            y += config.noise_std * rng.standard_normal(y.shape)
            F = linear.draw_feedback([config.width] * config.hidden, 2, rng)
            lr = config.lr / config.samples
            found = linear.train(x, y, feedback=F, lr=lr, epochs=config.steps, record=times.tolist())
            loss[i, draw] = found.losses
            for t, state in enumerate(found.states):
                e = state.predict(x) - y
                measured[i, draw, t] = state.gradient_alignment(x, y)
                predicted[i, draw, t] = state.predicted_gradient_alignment(e.T @ e)
                condition[i, draw, t] = state.condition_numbers()
            deviation[i, draw] = max(
                np.abs(W - explicit).max() / np.abs(explicit).max()
                for W, explicit in zip(found.weights(), _explicit(x, y, F, lr, config.steps), strict=True)
            )
            begun = found.states[0].alignment_matrices[1]
            direction[i, draw] = np.sum(begun * linear.first_steps(y.T @ x, F)[1]) / np.linalg.norm(begun)
            progress(i * config.draws + draw + 1, len(cells) * config.draws)
    dims = ("outputs", "draw", "step")
    return xr.Dataset(
        {
            "gradient_alignment": ((*dims, "layer"), measured),
            "predicted_alignment": ((*dims, "layer"), predicted, {"long_name": "from A, G and the errors' covariance"}),
            "condition_number": ((*dims, "matrix"), condition),
            "loss": (("outputs", "draw", "every_step"), loss),
            "deviation": (
                dims[:2],
                deviation,
                {"long_name": "of weights from F_l A_l F_{l-1}^T, relative, at the end"},
            ),
            "first_direction": (
                dims[:2],
                direction,
                {"long_name": "cosine of A_2 and its prediction, first measurement"},
            ),
        },
        coords={
            "alpha": ("outputs", [alpha for alpha, _ in cells]),
            "beta": ("outputs", [beta for _, beta in cells]),
            "step": times,
            "layer": np.arange(1, config.hidden + 1),
            "matrix": np.arange(1, config.hidden + 2),
        },
    )


def _explicit(x: Array, y: Array, F: list[Array], lr: float, steps: int) -> list[Array]:
    """Return the weights of the same training, done on the weights."""
    sizes = [x.shape[1], *(len(matrix) for matrix in F), y.shape[1]]
    weights = [np.zeros((sizes[l + 1], sizes[l])) for l in range(len(sizes) - 1)]
    for _ in range(steps):
        below = [x]
        for W in weights:
            below.append(below[-1] @ W.T)
        e = below[-1] - y
        for W, signal, h in zip(weights, [*(e @ matrix.T for matrix in F), e], below[:-1], strict=True):
            W -= lr * signal.T @ h
    return weights


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold identity, first steps, prediction and conditioning against the data."""
    runs = f"{dataset.sizes['outputs']} pairs (α, β) × {dataset.sizes['draw']} draws"
    wrong = np.abs(dataset.predicted_alignment - dataset.gradient_alignment)
    under_way = dataset.loss.isel(every_step=dataset.step) < dataset.loss.isel(every_step=0) / 2
    # Every matrix between the first and the last takes part in sending an error down to layer 1.
    condition = np.log(dataset.condition_number.isel(matrix=slice(1, -1))).mean("matrix", skipna=False)
    lowest = dataset.gradient_alignment.sel(layer=1)
    condition, lowest = (
        values.where(under_way).mean("step").transpose("draw", "outputs") for values in (condition, lowest)
    )
    ranks = np.array([stats.spearmanr(a, b).statistic for a, b in zip(condition.values, lowest.values, strict=True)])
    return [
        Verdict(
            claim="weights are F_l A_l F_{l−1}ᵀ to rounding after all of training (largest relative deviation)",
            effect=float(dataset.deviation.max(skipna=False)),
            spread=float(dataset.deviation.std(skipna=False)),
            threshold=1e-10,
            side="below",
            sample=runs,
        ),
        Verdict(
            claim=f"after {int(dataset.step[0])} steps A_2 points along Σ_yx Σ_xy (smallest cosine)",
            effect=float(dataset.first_direction.min(skipna=False)),
            spread=float(dataset.first_direction.std(skipna=False)),
            threshold=0.99,
            side="above",
            sample=runs,
        ),
        Verdict(
            claim="gradient alignment is predicted from A, G and the errors' covariance (mean absolute error)",
            effect=float(wrong.mean(skipna=False)),
            spread=float(wrong.std(skipna=False)),
            threshold=0.1,
            side="below",
            sample=f"{runs}, {dataset.sizes['step']} times, {dataset.sizes['layer']} layers; spread: standard "
            "deviation",
        ),
        Verdict(
            claim="the worse the matrices are conditioned while the network learns, the lower is layer 1's gradient "
            "alignment: rank correlation over (α, β)",
            effect=float(ranks.mean()),
            spread=float(ranks.std(ddof=1) / np.sqrt(len(ranks))),
            threshold=-0.5,
            side="below",
            sample=f"{len(ranks)} draws, means over the time after the loss has halved; spread: standard error, "
            "one-sided 95 % (t)",
            margin=float(stats.t.isf(0.05, len(ranks) - 1)),
        ),
    ]


def plot(dataset: xr.Dataset) -> Figure:
    """Draw loss, conditioning of A_2, and gradient alignment measured and predicted, for every pair (α, β)."""
    with figure_style():
        figure = Figure(figsize=(8.6, 2.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for i, colour in enumerate(layer_colours(dataset.sizes["outputs"])):
            cell = dataset.isel(outputs=i)
            label = f"{float(cell.alpha):g}, {float(cell.beta):g}"
            loss = cell.loss.mean("draw")
            left.plot(loss / loss[0], color=colour, label=label)
            middle.plot(cell.step, cell.condition_number.sel(matrix=2).median("draw"), color=colour)
            gradient, predicted = (cell[name].sel(layer=1) for name in ("gradient_alignment", "predicted_alignment"))
            right.plot(cell.step, gradient.mean("draw"), color=colour)
            right.plot(cell.step, predicted.mean("draw"), "o", ms=3, markerfacecolor="white", color=colour)
        left.set(yscale="log", xlabel="step", ylabel="loss / loss(0)")
        left.legend(title="α, β", loc="upper right")
        letter(left, "a", "learning")
        middle.set(xscale="log", yscale="log", xlabel="step", ylabel="condition number of $A_2$")
        letter(middle, "b", "conditioning")
        right.set(xscale="log", xlabel="step", ylabel="gradient alignment, layer 1", ylim=(-0.05, 1.05))
        letter(right, "c", "measured, and from A and G")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows and over how many runs."""
    return (
        "Deep linear networks trained by DFA from zero weights on two outputs of covariance [[1, α(1−β)], [α(1−β), "
        "α²]]. (a) Loss. (b) Condition number of the second alignment matrix, median. (c) Gradient alignment of layer "
        "1: lines measured sample by sample, points predicted from A, G and the errors' covariance. "
        f"{dataset.sizes['draw']} draws."
    )
