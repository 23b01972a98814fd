r"""Alignment matrices: the C × C matrices that describe training by DFA, and what their conditioning decides.

From zero weights a deep linear network keeps W_l = F_l A_l F_{l−1}ᵀ exactly, which is a law (tests/laws). The claim is
about what the matrices A_l predict.

Setting: full-batch DFA on samples of a noisy linear teacher, whose two outputs have covariance
[[1, α(1−β)], [α(1−β), α²]].

Source: Refinetti et al. (2021), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.output_pairs import covariance_root, with_pairs
from feedalign.lab.experiments.common.verdict import Verdict
from feedalign.lab.panels import panels
from feedalign.lab.runs import Desk, Job
from feedalign.streams import numpy_generator
from feedalign.style import figure_style, layer_colours
from feedalign.theory import linear

NAME = "alignment-matrices"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all draws have in common.

    Attributes:
        inputs: n_0, number of inputs.
        samples: size of the training set.
        width: width of the hidden layers.
        hidden: number of hidden layers.
        noise_std: standard deviation of the noise in the targets.
        lr: η, learning rate for the loss's mean over samples.
        steps: steps of full-batch descent.
        measurements: number of measured steps, evenly spaced in log time.
        first_seed: seed from which every draw gets its own.
    """

    inputs: int = 20
    samples: int = 200
    width: int = 100
    hidden: int = 3
    noise_std: float = 0.1
    lr: float = 0.02
    steps: int = 600
    measurements: int = 25
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, what is drawn and how often.

    Attributes:
        outputs: pairs (α, β).
        draws: independent teachers, samples and feedback matrices.
    """

    outputs: tuple[tuple[float, float], ...] = ((1.0, 1.0), (0.5, 1.0), (0.2, 1.0), (1.0, 0.2), (0.2, 0.2))
    draws: int = 8


CONFIGS = {"quick": Config(), "paper": Config(inputs=100, samples=1000, width=300, steps=3000, draws=20)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


@dataclass(frozen=True, kw_only=True)
class Training(Setting, Job):
    """One teacher, sample and set of feedback matrices.

    Attributes:
        output: (α, β).
        draw: number of the draw.
    """

    kind = f"{NAME}-training"
    output: tuple[float, float]
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:  # noqa: ARG002 — a matter of a second
        """Train, and measure at times that are evenly spaced in log time."""
        rng = numpy_generator(self.first_seed, "data", self.draw)
        x = rng.standard_normal((self.samples, self.inputs))
        basis = np.linalg.qr(rng.standard_normal((self.inputs, 2)))[0]
        y = x @ basis @ covariance_root(*self.output)
        y += self.noise_std * rng.standard_normal(y.shape)
        of_feedback = numpy_generator(self.first_seed, "feedback", self.draw)
        F = linear.draw_feedback([self.width] * self.hidden, 2, of_feedback)
        times = np.unique(np.geomspace(5, self.steps, self.measurements).round().astype(int))
        found = linear.train(x, y, feedback=F, lr=self.lr / self.samples, epochs=self.steps, record=times.tolist())
        errors = [state.predict(x) - y for state in found.states]
        predicted = [state.predicted_gradient_alignment(e.T @ e) for state, e in zip(found.states, errors, strict=True)]
        return xr.Dataset(
            {
                "gradient_alignment": (("step", "layer"), [state.gradient_alignment(x, y) for state in found.states]),
                "predicted_alignment": (("step", "layer"), predicted),
                "condition_number": (("step", "matrix"), [state.condition_numbers() for state in found.states]),
                "loss": ("every_step", found.losses),
            },
            coords={
                "step": ("step", times, {"units": "steps"}),
                "layer": np.arange(1, self.hidden + 1),
                "matrix": np.arange(1, self.hidden + 2),
            },
        )


def jobs(config: Config) -> list[Training]:
    """Return a job for every draw of every pair (α, β)."""
    return jobs_on_grid(Training, config, output=config.outputs, draw=range(config.draws))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put draws and pairs (α, β) side by side."""
    dataset = on_grid(results, outputs=len(config.outputs), draw=config.draws)
    dataset.predicted_alignment.attrs["long_name"] = "from A, G and the errors' covariance"
    return with_pairs(dataset, config.outputs)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test what the matrices predict of gradient alignment, and that it falls with their conditioning."""
    return [_prediction(dataset), _ranks(dataset)]


def _prediction(dataset: xr.Dataset) -> Verdict:
    """Compare what is special to a draw, in the prediction and in the measurement.

    At each pair (α, β), time and layer the mean over draws is taken out. So a prediction made from the matrices of
    another draw, or the usual course of gradient alignment, predicts nothing here.
    """
    predicted, measured = (
        values - values.mean("draw", skipna=False)
        for values in (dataset.predicted_alignment, dataset.gradient_alignment)
    )
    over = ("outputs", "step", "layer")
    correlation = xr.corr(predicted, measured, over)
    return Verdict.of_mean(
        "A, G and the errors' covariance predict where the gradient alignment of a draw differs from that of other "
        "draws: correlation of predicted and measured difference",
        correlation.where((predicted + measured).notnull().all(over)),  # corr skips what is not a number
        0.5,
        sample=f"a draw of teacher, samples and feedback; over {dataset.sizes['outputs']} pairs (α, β), "
        f"{dataset.sizes['step']} times and {dataset.sizes['layer']} layers",
    )


def _ranks(dataset: xr.Dataset) -> Verdict:
    """Correlate condition numbers and gradient alignment over (α, β), after the loss has halved."""
    under_way = dataset.loss.isel(every_step=dataset.step) < dataset.loss.isel(every_step=0) / 2
    # Every matrix between the first and the last takes part in sending an error down to layer 1.
    condition = np.log(dataset.condition_number.isel(matrix=slice(1, -1))).mean("matrix", skipna=False)
    lowest = dataset.gradient_alignment.sel(layer=1)
    steps = under_way.sum("step")
    condition, lowest = (  # a value under way that is not a number is not left out of the mean
        (values.where(under_way, 0.0).sum("step", skipna=False) / steps.where(steps > 0)).transpose("draw", "outputs")
        for values in (condition, lowest)
    )
    return Verdict.of_mean(
        "the worse the matrices are conditioned while the network learns, the lower is layer 1's gradient alignment: "
        "rank correlation over (α, β)",
        [stats.spearmanr(a, b).statistic for a, b in zip(condition.values, lowest.values, strict=True)],
        -0.5,
        "below",
        sample="a draw of teacher, samples and feedback; means over the time after the loss has halved",
    )


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw loss, conditioning of A_2, and gradient alignment measured and predicted, for every pair (α, β)."""
    figure, (left, middle, right) = panels(8.6, 2.8, ("learning", "conditioning", "gradient alignment, layer 1"))
    for i, colour in enumerate(layer_colours(dataset.sizes["outputs"])):
        cell = dataset.isel(outputs=i)
        label = f"{float(cell.alpha):g}, {float(cell.beta):g}"
        loss = cell.loss.mean("draw")
        left.plot(loss / loss[0], color=colour, label=label)
        middle.plot(cell.step, cell.condition_number.sel(matrix=2).median("draw"), color=colour)
        gradient, predicted = (cell[name].sel(layer=1) for name in ("gradient_alignment", "predicted_alignment"))
        right.plot(cell.step, gradient.mean("draw"), color=colour)
        right.plot(cell.step, predicted.mean("draw"), "o", ms=3, markerfacecolor="white", color=colour)
    right.plot([], [], color="0.4", label="measured")
    right.plot([], [], "o", ms=3, markerfacecolor="white", color="0.4", label="predicted from A and G")
    right.legend(loc="lower left")
    left.set(yscale="log", xlabel="step", ylabel="loss / loss(0)")
    left.legend(title="α, β", loc="upper right")
    middle.set(xscale="log", yscale="log", xlabel="step", ylabel="condition number of $A_2$")
    right.set(xscale="log", xlabel="step", ylabel="gradient alignment (cosine)", ylim=(-0.05, 1.05))
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        "Deep linear networks trained by DFA from zero weights on two outputs of covariance [[1, α(1−β)], [α(1−β), "
        "α²]]. (a) Loss. (b) Condition number of the second alignment matrix, median. (c) Gradient alignment of layer "
        "1; lines: measured sample by sample; points: predicted from A, G and the errors' covariance. "
        f"{dataset.sizes['draw']} draws."
    )
