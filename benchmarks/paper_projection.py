"""How long does the deep half of the paper take on one core of this machine, at its own size?

Projected from three hundred steps of every kind of training (data set, activation, rule, width), and one measurement.
MNIST and CIFAR-10 must have been fetched. Two workers take half of the time if two cores are free.

Run: python benchmarks/paper_projection.py
"""

from __future__ import annotations

from itertools import product
from typing import Any

from _projection import project
from _timing import save

from feedalign.lab.experiments import get

EXPERIMENTS = ("layerwise", "deep-dynamics", "width", "gradient-perturbation")


def row(name: str, dataset: str) -> dict[str, Any]:
    experiment: Any = get(name)
    found = project(experiment.jobs(experiment.ON_DATASET[dataset]["paper"]))
    return {
        "experiment": name,
        "dataset": dataset,
        "trainings": found.trainings,
        "million_steps": round(found.steps / 1e6, 2),
        "hours": round(found.seconds / 3600, 2),
        "of_which_measuring": round(found.measuring, 4),
    }


def main() -> None:
    save("paper_projection", [row(*of) for of in product(EXPERIMENTS, ("mnist", "cifar10"))])


if __name__ == "__main__":
    main()
