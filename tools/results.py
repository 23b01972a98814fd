"""Write the folder `results/`, from which the documentation takes every number and figure of an experiment.

    python tools/results.py [NAME ...] [--preset quick] [--dataset DATASET] [--runs runs]
    python tools/results.py NAME --preset paper [--set FIELD=VALUE ...]
    python tools/results.py --redraw

Finished runs are read, the others are computed. Each experiment gets `results/NAME.json`, `results/NAME.svg`, and the
data that were computed as `results/NAME.nc`. A data set that was asked for is added to the name. Files of the preset
"paper" lie in `results/paper/`. The JSON file lists the fields that `--set` has changed. Without names every
experiment is written, and the files of experiments that no longer exist are removed. Counts of base seeds come from
`results/seed_robustness.csv`, which `feedalign reproduce --seeds 5` writes. `--redraw` draws all figures of both
presets again from the data that lie there, and changes nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import xarray as xr

from feedalign import lab
from feedalign.lab.changes import read_options
from feedalign.lab.experiments import NAMES, Verdict, get
from feedalign.lab.report import Result
from feedalign.lab.robustness import Robustness, read
from feedalign.style import svg

RESULTS = Path(__file__).parents[1] / "results"
LARGEST = 2_000_000  # bytes of a committed data set: a repository keeps every version for ever


def stem(name: str, dataset: str | None = None, preset: str = "quick") -> str:
    """Return where a result's files lie below `results/`, without their ending."""
    return ("paper/" if preset == "paper" else "") + "-".join([name, *([dataset] if dataset else [])])


def part(verdict: Verdict, row: Robustness | None) -> dict[str, Any]:
    """Return one part of a claim as JSON has it; a number that is missing becomes null."""
    return {
        "claim": verdict.claim,
        "verdict": verdict.word,
        "effect": number(verdict.effect),
        "interval": [number(bound) for bound in verdict.interval],
        "side": verdict.side,
        "threshold": verdict.threshold,
        "runs": verdict.runs,
        "sample": verdict.sample,
        "other_base_seeds": None if row is None else {"supported": row.supported, "seeds": row.seeds},
    }


def number(value: float) -> float | None:
    """Return a number with six digits, or None for one that JSON cannot write."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def document(result: Result, preset: str, dataset: str | None, robustness: list[Robustness]) -> dict[str, Any]:
    """Return what is written of one result."""
    rows = {row.part: row for row in robustness if row.config_hash == result.run.config_hash}
    experiment = result.experiment
    return {
        "experiment": experiment.NAME,
        "claim": experiment.CLAIM,
        "preset": preset,
        "dataset": dataset,
        "changes": [{"field": change.name, "preset": change.before, "run": change.after} for change in result.changes],
        "config": json.loads((result.run.folder / "config.json").read_text(encoding="utf-8"))["config"],
        "config_hash": result.run.config_hash,
        "packages": result.run.environment["packages"],
        "seconds": round(result.run.seconds, 1),
        "command": result.command,
        "caption": experiment.caption(result.run.dataset),
        "parts": [part(verdict, rows.get(i)) for i, verdict in enumerate(result.verdicts, start=1)],
    }


def write(result: Result, preset: str, dataset: str | None, robustness: list[Robustness], folder: Path) -> None:
    """Write the files of one result into `folder`."""
    path = folder / stem(result.experiment.NAME, dataset, preset)
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(document(result, preset, dataset, robustness), indent=2, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    content = compressed(result.run.dataset)
    path.with_suffix(".nc").write_bytes(content)
    path.with_suffix(".svg").write_bytes(drawn(result.experiment.NAME, io.BytesIO(content)))


def drawn(name: str, data: io.BytesIO | Path) -> bytes:
    """Return the figure of an experiment, drawn from a data set as it is committed."""
    return svg(get(name).plot(xr.load_dataset(data, engine="h5netcdf")))


def redraw(folder: Path) -> None:
    """Draw the figure of every committed data set again."""
    for path in sorted(folder.rglob("*.nc")):
        name = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["experiment"]
        path.with_suffix(".svg").write_bytes(drawn(name, path))


def compressed(dataset: xr.Dataset) -> bytes:
    """Return a data set as small NetCDF: in single precision, which no threshold is as near to, and compressed.

    Raises:
        ValueError: the data set is too large to be committed.
    """
    kinds = {name: values.dtype.kind for name, values in dataset.data_vars.items()}
    packed = {"zlib": True, "complevel": 9, "shuffle": True}
    encoding = {name: {**packed, **({"dtype": "float32"} if kind == "f" else {})} for name, kind in kinds.items()}
    content = bytes(dataset.to_netcdf(engine="h5netcdf", encoding=encoding))
    if len(content) > LARGEST:
        raise ValueError(f"the data set has {len(content):,} bytes, at most {LARGEST:,} are allowed: change the config")
    return content


def remove_strangers(folder: Path) -> None:
    """Remove the files of experiments that no longer exist."""
    for path in folder.rglob("*.json"):
        if json.loads(path.read_text(encoding="utf-8"))["experiment"] not in NAMES:
            for ending in (".json", ".svg", ".nc"):
                path.with_suffix(ending).unlink(missing_ok=True)


def main(arguments: list[str]) -> None:
    """Run what is missing, and write."""
    parser = argparse.ArgumentParser(description="Write results/ from a folder of runs.")
    parser.add_argument("names", nargs="*", help="experiments; all of them unless given")
    parser.add_argument("--preset", choices=("quick", "paper"), default="quick")
    parser.add_argument("--dataset", help="data set, instead of the preset's own")
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE, instead of the preset's own")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write")
    parser.add_argument("--redraw", action="store_true", help="only draw the figures of the committed data sets again")
    asked = parser.parse_args(arguments)
    if asked.redraw:
        redraw(asked.results)
        return
    if asked.set and asked.preset != "paper":
        parser.error("--set is for --preset paper: the page would show a changed quick run as the preset's own")
    asked.results.mkdir(exist_ok=True)
    table = asked.results / "seed_robustness.csv"
    robustness = read(table)
    with tempfile.TemporaryDirectory() as folder:
        lab.reproduce(
            asked.names, asked.preset, asked.dataset, asked.runs, Path(folder) / "report.html",
            changes=read_options(asked.set), table=table,
            finished=lambda result: write(result, asked.preset, asked.dataset, robustness, asked.results),
        )  # fmt: skip
    if not asked.names:
        remove_strangers(asked.results)


if __name__ == "__main__":
    main(sys.argv[1:])
