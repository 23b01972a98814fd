r"""Output statistics: correlated or unequal outputs align worse, in linear and in non-linear networks.

Nothing is claimed of ReLU networks on random targets, whose alignment shows no order. The late decline of weight
alignment may come from bending: in a trial with targets of 0.3 times the size, for which tanh is nearly linear, three
draws lost half as much. Its threshold, 0.01, was chosen on first_seed = 1 000 000 before the presets were run.

Setting: networks with three hidden layers and two outputs of covariance [[1, α(1−β)], [α(1−β), α²]], full-batch descent
on ½|ŷ − y|², from small weights. Random targets have nothing to do with the inputs, as in the original study;
realisable targets are a linear function of the inputs. Both are whitened within the sample before they get their
covariance, which is then exact: otherwise chance would correlate white outputs, and the draws would differ in more than
α and β. There are many more samples than inputs, so that a linear network cannot fit random targets: with fewer samples
than inputs every target could be learned. All pairs (α, β) of one draw share inputs, initial weights and feedback.

On targets that can be learned the differences between the pairs (α, β) are largest while the worse conditioned outputs
are still being learned. On random targets they need longer to appear. The end of the quick preset, η · steps = 20, was
chosen on first_seed = 5 000 000 and 5 100 000.

Source: Refinetti et al. (2021), section 3, there for random targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.output_pairs import covariance
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.experiments.output_statistics_job import ACTIVATIONS, TARGETS, Setting, Training
from feedalign.lab.panels import panels
from feedalign.style import figure_style, layer_colours

NAME = "output-statistics"
CLAIM = CLAIMS[NAME]
LABELS = {"linear": "linear", "tanh": "tanh", "relu": "ReLU"}
DECLINE = 0.01  # of a cosine


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, the number of draws.

    Attributes:
        draws: independent inputs, targets, initial weights and feedback.
    """

    draws: int = 12


CONFIGS = {
    "quick": Config(),
    "paper": Config(
        alphas=(1.0, 0.8, 0.6, 0.4, 0.2), betas=(1.0, 0.8, 0.6, 0.4, 0.2), samples=1000, width=100, draws=20,
        lr=0.04, steps=3000,
    ),
}  # fmt: skip
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


def jobs(config: Config) -> list[Training]:
    """Return a job for every draw of every activation and kind of target."""
    return jobs_on_grid(Training, config, activation=ACTIVATIONS, target=TARGETS, draw=range(config.draws))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put draws, kinds of target and activations side by side."""
    return on_grid(results, activation=ACTIVATIONS, target=TARGETS, draw=config.draws)


def condition_numbers(dataset: xr.Dataset) -> NDArray[np.float64]:
    """Return the condition number of the outputs' covariance, [alpha, beta]."""
    return np.array([[np.linalg.cond(covariance(float(a), float(b))) for b in dataset.beta] for a in dataset.alpha])


def rank_correlations(dataset: xr.Dataset) -> xr.DataArray:
    """Return Spearman's correlation of condition number and gradient alignment over (α, β), for every run."""
    conditions = np.log(condition_numbers(dataset)).ravel()
    correlations: xr.DataArray = xr.apply_ufunc(
        lambda values: stats.spearmanr(conditions, values.ravel()).statistic,
        dataset.gradient_alignment,
        input_core_dims=[["alpha", "beta"]],
        vectorize=True,
    )
    return correlations


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the ranks and both falls; the weakest of the activations named in a claim decides."""
    gradient, alpha, beta = dataset.gradient_alignment, dataset.alpha, dataset.beta
    ranks = rank_correlations(dataset)
    of_alpha = (gradient.sel(alpha=alpha.max()) - gradient.sel(alpha=alpha.min())).mean("beta", skipna=False)
    of_beta = (gradient.sel(beta=beta.max()) - gradient.sel(beta=beta.min())).mean("alpha", skipna=False)
    rank = "rank correlation of the outputs' condition number and gradient alignment over (α, β)"
    fall = "gradient alignment at the largest minus that at the smallest value of"

    def of_each(values: xr.DataArray, target: str, *activations: str) -> dict[str, xr.DataArray]:
        return {LABELS[each]: values.sel(target=target, activation=each) for each in activations}

    return [
        *verdicts_on("a draw of inputs, targets, weights and feedback", {
            f"targets that can be learned: {rank} (weakest activation)":
                (of_each(ranks, "realisable", *ACTIVATIONS), "below", 0.0),
            f"targets that can be learned: {fall} α (weakest activation)":
                (of_each(of_alpha, "realisable", *ACTIVATIONS), "above", 0.0),
            f"targets that can be learned: {fall} β (weakest activation)":
                (of_each(of_beta, "realisable", *ACTIVATIONS), "above", 0.0),
            f"random targets, linear networks: {rank}": (of_each(ranks, "random", "linear"), "below", 0.0),
            f"random targets, linear and tanh networks: {fall} α (weaker activation)":
                (of_each(of_alpha, "random", "linear", "tanh"), "above", 0.0),
        }),
        _decline(dataset),
    ]  # fmt: skip


def _decline(dataset: xr.Dataset) -> Verdict:
    """Compare what tanh and linear networks lose of their weight alignment on white outputs."""
    white = dataset.weight_alignment_course.sel(target="realisable", alpha=dataset.alpha.max(), beta=dataset.beta.max())
    lost = white.max("step", skipna=False) - white.isel(step=-1)
    return Verdict.of_difference(
        "white outputs that can be learned: weight alignment declines in tanh networks, and not in linear ones: its "
        "peak minus its end, tanh minus linear from the same start",
        lost.sel(activation="tanh"),
        lost.sel(activation="linear"),
        DECLINE,
        sample="a draw of inputs, targets, weights and feedback; mean over layers",
    )


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw gradient and weight alignment against the condition number, for every activation, and over time."""
    conditions = condition_numbers(dataset).ravel()
    order = np.argsort(conditions)
    titles = [*(LABELS[activation] for activation in ACTIVATIONS), "white outputs, over time"]
    figure, (*of_activation, course) = panels(11, 2.9, titles)
    for axes in of_activation[1:]:
        axes.sharey(of_activation[0])
        axes.tick_params(labelleft=False)
    colours = layer_colours(2)
    for axes, activation in zip(of_activation, ACTIVATIONS, strict=True):
        for name, colour, label in zip(
            ("gradient_alignment", "weight_alignment"), colours, ("gradients", "weights"), strict=True
        ):
            for target, style, face in zip(TARGETS, ("-", "--"), (colour, "white"), strict=True):
                values = dataset[name].sel(activation=activation, target=target).transpose("draw", "alpha", "beta")
                runs = values.values.reshape(len(values), -1)[:, order]
                axes.errorbar(
                    conditions[order], runs.mean(0), runs.std(0, ddof=1), ls=style, lw=1, marker="o",
                    ms=3.5, color=colour, markerfacecolor=face, label=f"{label}, {target}",
                )  # fmt: skip
        axes.set(xscale="log", xlabel="condition number of the outputs", ylim=(0, 1.03))
    of_activation[0].set_ylabel("alignment at the end")
    of_activation[0].legend(loc="lower left", fontsize=7)
    _draw_course(course, dataset)
    return figure


def _draw_course(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw weight alignment over time on white outputs, for every activation and kind of target."""
    white = dataset.weight_alignment_course.sel(alpha=dataset.alpha.max(), beta=dataset.beta.max())
    for activation, colour in zip(ACTIVATIONS, layer_colours(len(ACTIVATIONS)), strict=True):
        for target, style in zip(TARGETS, ("-", "--"), strict=True):
            mean = white.sel(activation=activation, target=target).mean("draw")
            label = LABELS[activation] if target == TARGETS[0] else None
            axes.plot(dataset.step, mean, style, color=colour, lw=1.2, label=label)
    axes.set(xscale="log", xlabel="step", ylabel="weight alignment", ylim=(0.6, 1.0))  # where it declines
    axes.legend(loc="center right", fontsize=7)


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    pairs = dataset.sizes["alpha"] * dataset.sizes["beta"]
    return (
        "Gradient and weight alignment, means over layers, of networks trained by DFA on two outputs of covariance "
        "[[1, α(1−β)], [α(1−β), α²]], against the condition number of this covariance. Points: mean and standard "
        f"deviation of {dataset.sizes['draw']} draws at each of {pairs} pairs (α, β); "
        "filled: random targets, open: realisable ones. (d) Weight alignment "
        "on the pair with the best condition over time, mean over draws; solid: random targets, dashed: realisable."
    )
