"""What the report says of one experiment, put together for the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feedalign.lab.changes import Change
from feedalign.lab.experiments import Experiment, Verdict
from feedalign.lab.robustness import Robustness
from feedalign.lab.runs import StoredRun

# The order of the page: what failed is what a reader wants to see first.
ORDER = ("not supported", "cannot be judged", "supported")
SIGNS = {"not supported": "✗", "cannot be judged": "?", "supported": "✓"}


@dataclass(frozen=True)
class Result:
    """One experiment as the report shows it.

    Attributes:
        experiment: the experiment's module.
        run: the stored run.
        verdicts: what the experiment's check says of the run, one verdict for each part of the claim.
        command: the command line that gives this result again.
        changes: how the config differs from the preset's.
    """

    experiment: Experiment
    run: StoredRun
    verdicts: list[Verdict]
    command: str
    changes: tuple[Change, ...] = ()

    @property
    def supported(self) -> bool:
        """Whether every part of the claim is supported."""
        return all(verdict.supported for verdict in self.verdicts)

    @property
    def word(self) -> str:
        """The verdict on the whole claim in words: that of its worst part."""
        return min((verdict.word for verdict in self.verdicts), key=ORDER.index, default="supported")


@dataclass(frozen=True)
class Part:
    """One part of a claim.

    Attributes:
        number: of the part, from 1.
        verdict: on the part.
        holm: its p-value, corrected for the number of parts on the page.
        robust: at how many other base seeds it is supported, in words; empty if that was not counted.
    """

    number: int
    verdict: Verdict
    holm: float
    robust: str

    @property
    def sign(self) -> str:
        """The verdict as one character."""
        return SIGNS[self.verdict.word]


@dataclass(frozen=True)
class Section:
    """One experiment with everything that the page shows of it.

    Attributes:
        result: the experiment, its run and its verdicts.
        parts: one for each verdict.
        figure: address of the figure, which holds the figure itself.
    """

    result: Result
    parts: list[Part]
    figure: str

    @property
    def name(self) -> str:
        """The experiment's name, which is also the section's place on the page."""
        return self.result.experiment.NAME

    @property
    def rows(self) -> list[dict[str, object]]:
        """The numbers of the parts in full precision, one row for each part."""
        return [
            {
                "experiment": self.name,
                "part": part.number,
                "claim": part.verdict.claim,
                "verdict": part.verdict.word,
                "effect": part.verdict.effect,
                "standard_error": part.verdict.standard_error,
                "interval_low": part.verdict.interval[0],
                "interval_high": part.verdict.interval[1],
                "side": part.verdict.side,
                "threshold": part.verdict.threshold,
                "p_value": part.verdict.p_value,
                "p_value_holm": part.holm,
                "runs": part.verdict.runs,
                "sample": part.verdict.sample,
                "config_hash": self.result.run.config_hash,
                "command": self.result.command,
            }
            for part in self.parts
        ]


def section(result: Result, corrected: Iterator[float], robustness: Sequence[Robustness], figure: str) -> Section:
    """Put together what the page shows of a result.

    `corrected` gives Holm's p-values of all verdicts on the page; those of this result are taken from it. Rows of
    `robustness` that belong to other runs are passed over.
    """
    words = {row.part: row.words for row in robustness if row.config_hash == result.run.config_hash}
    parts = [
        Part(number, verdict, next(corrected), words.get(number, ""))
        for number, verdict in enumerate(result.verdicts, start=1)
    ]
    return Section(result, parts, figure)
