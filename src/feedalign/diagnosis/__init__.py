"""Will feedback alignment work for this network on this data, and why? `diagnose` measures it and says it."""

from feedalign.diagnosis.answering import check_numbers, diagnose
from feedalign.diagnosis.batches import Batches
from feedalign.diagnosis.expectation import Direction, Expectation, Moment
from feedalign.diagnosis.result import Diagnosis
from feedalign.diagnosis.training import Trained
from feedalign.diagnosis.users_code import kind_of, output_on, seeded, told

__all__ = [
    "Batches",
    "Diagnosis",
    "Direction",
    "Expectation",
    "Moment",
    "Trained",
    "check_numbers",
    "diagnose",
    "kind_of",
    "output_on",
    "seeded",
    "told",
]
