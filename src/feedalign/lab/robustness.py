"""Seed robustness: in how many of several base seeds each part of a claim is supported, kept in one CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.experiments import Verdict
from feedalign.lab.files import csv_text, write_file

# Distance of two base seeds. Base seeds share no random stream, however near they are.
SEED_STRIDE = 100_000


@dataclass(frozen=True)
class Robustness:
    """One part of a claim at several base seeds.

    Attributes:
        experiment: name of the experiment.
        config_hash: of the config at the preset's own base seed; it tells whether a row belongs to a run.
        preset: "quick" or "paper".
        dataset: data set that was asked for; empty for the preset's own.
        part: number of the part of the claim, from 1.
        supported: number of base seeds at which the part is supported.
        seeds: number of base seeds; the preset's own is not among them.
        lowest: smallest effect of all base seeds.
        highest: largest effect of all base seeds.
        threshold: side and number that the effect must pass.
        claim: the part of the claim, at the last of the base seeds.
    """

    experiment: str
    config_hash: str
    preset: str
    dataset: str
    part: int
    supported: int
    seeds: int
    lowest: float
    highest: float
    threshold: str
    claim: str

    @property
    def words(self) -> str:
        """The count in words, "supported in 5 of 5"."""
        return f"supported in {self.supported} of {self.seeds}"


def counted(
    experiment: str, config_hash: str, preset: str, dataset: str | None, checks: Sequence[Sequence[Verdict]]
) -> list[Robustness]:
    """Return a row for each part of a claim.

    `checks` are the verdicts of every base seed, [seeds][parts]. `Robustness` explains the other arguments.
    """
    rows = []
    for part, verdicts in enumerate(zip(*checks, strict=True), start=1):
        effects, last = [verdict.effect for verdict in verdicts], verdicts[-1]
        rows.append(
            Robustness(
                experiment=experiment,
                config_hash=config_hash,
                preset=preset,
                dataset=dataset or "",
                part=part,
                supported=sum(verdict.supported for verdict in verdicts),
                seeds=len(verdicts),
                lowest=float(f"{min(effects):.4g}"),
                highest=float(f"{max(effects):.4g}"),
                threshold=f"{last.side} {last.threshold:.4g}",
                claim=last.claim,
            )
        )
    return rows


def read(path: Path) -> list[Robustness]:
    """Return the rows of the table; none if there is no such file.

    Raises:
        DataError: the file is not such a table.
    """
    if not path.exists():
        return []
    kinds = {"int": int, "float": float, "str": str}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
        return [
            Robustness(**{field.name: kinds[str(field.type)](line[field.name]) for field in fields(Robustness)})
            for line in lines
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path} is no table of seed robustness ({error!r}); delete it, or give another table"
        ) from error


def merge(path: Path, rows: Iterable[Robustness]) -> None:
    """Write rows into the table at `path`; they replace all rows of the same experiment, preset and data set.

    Raises:
        DataError: the file exists and is not such a table.
        OSError: the file cannot be written.
    """
    new = list(rows)
    replaced = {(row.experiment, row.preset, row.dataset) for row in new}
    kept = [row for row in read(path) if (row.experiment, row.preset, row.dataset) not in replaced]
    table = sorted([*kept, *new], key=lambda row: (row.experiment, row.preset, row.dataset, row.part))
    write_file(path, csv_text([field.name for field in fields(Robustness)], map(astuple, table)).encode())
