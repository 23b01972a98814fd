"""What a diagnosis found, and the forms in which it can be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feedalign.checks import Array
from feedalign.diagnosis import words
from feedalign.diagnosis.expectation import Expectation, Moment
from feedalign.diagnosis.training import Trained

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Whether a network aligns on some data, and why: what was seen, expected and measured.

    >>> import torch, feedalign as fa
    >>> x = torch.randn(256, 20, generator=torch.Generator().manual_seed(0))
    >>> batches = list(zip(x.split(32), x[:, :4].argmax(1).split(32)))
    >>> net = fa.DFA(fa.networks.MLP([20, 50, 50, 4]), seed=0)
    >>> found = fa.diagnose(net, torch.nn.functional.cross_entropy, batches, steps=50)
    >>> found.diverged
    False
    >>> bool((found.trained["dfa"].gradient_alignment[-1] > 0.3).all())
    True

    C is the number of outputs. Layers are the points from the bottom, and "readout".

    Attributes:
        name: of what was diagnosed.
        samples: how many errors were seen before training.
        probe: how many errors alignment was measured on.
        steps: of training.
        isotropic: whether inputs were taken for isotropic, because they are not vectors of one length.
        points: names of the feedback points, from the bottom.
        layers: the points, and "readout".
        errors: second moment of the errors before training, E[e eᵀ].
        input_output: Σ_yx Σ_xy, to which the second alignment matrix is proportional in the first steps.
        conditioner: P, [C, C], for `feedalign.feedback.Conditioned`: what `ConditionedDFA` comes to on these errors.
        expected: what theory expects, of "plain" feedback and of feedback "conditioned" by P.
        trained: what was measured, by name of the rule: "dfa" and, if compared, "conditioned-dfa"; or the rule in which
            the model came.
        alignability: the largest weight alignment that any weights of a layer can reach with this feedback, [layers];
            1 for dense layers, NaN where it is not known.
        alignability_channelwise: the same with feedback that is constant over the positions of a channel, [layers].
    """

    name: str
    samples: int
    probe: int
    steps: int
    isotropic: bool
    points: tuple[str, ...]
    layers: tuple[str, ...]
    errors: Moment
    input_output: Moment
    conditioner: Array
    expected: dict[str, Expectation]
    trained: dict[str, Trained]
    alignability: Array
    alignability_channelwise: Array

    @property
    def diverged(self) -> bool:
        """Whether any net diverged."""
        return any(each.diverged_at is not None for each in self.trained.values())

    @property
    def speedup(self) -> float:
        """How many times fewer steps ConditionedDFA needed than DFA, to the lowest loss that both reached.

        The loss is that on the probe. Below 1 ConditionedDFA was slower; 1 where neither has lowered the loss. NaN
        unless both were trained and neither diverged.
        """
        plain, conditioned = self.trained.get("dfa"), self.trained.get("conditioned-dfa")
        if plain is None or conditioned is None or self.diverged:
            return np.nan
        target = max(plain.losses.min(), conditioned.losses.min())
        needed = [_steps_to(target, each) for each in (plain, conditioned)]
        return needed[0] / needed[1] if min(needed) > 0 else 1.0

    @property
    def advice(self) -> str:
        """Whether to use ConditionedDFA, in a sentence or two: as measured, or, if not compared, from the errors."""
        return words.advice(self)

    def table(self) -> str:
        """Return everything as plain text: what was seen before training, a row for each layer, and the answer."""
        return words.text(self)

    def figure(self) -> Figure:
        """Draw spectra and variances before training, and gradient alignment along it. Needs matplotlib."""
        from feedalign.diagnosis.drawing import figure

        return figure(self)

    def to_dataset(self) -> xr.Dataset:
        """Return every number as one data set with named dimensions, to be saved as NetCDF. Needs xarray."""
        from feedalign.diagnosis.dataset import to_dataset

        return to_dataset(self)

    @classmethod
    def from_dataset(cls, dataset: Any) -> Diagnosis:
        """Return the diagnosis whose `to_dataset` this is."""
        from feedalign.diagnosis.dataset import from_dataset

        return from_dataset(dataset)


def _steps_to(target: float, net: Trained) -> float:
    """Return after how many steps the loss first was this low, straight lines between the losses known."""
    i = int(np.argmax(net.losses <= target))
    # np.interp wants increasing abscissae: the loss before, which was higher, comes second.
    return float(np.interp(target, net.losses[[i, i - 1]], np.take(net.loss_steps, [i, i - 1]))) if i else 0.0
