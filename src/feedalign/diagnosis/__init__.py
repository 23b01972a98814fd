"""Will feedback alignment work for this network on this data, and why? `diagnose` measures it and says it."""

from feedalign.diagnosis.answering import diagnose
from feedalign.diagnosis.batches import Batches, arguments, seeded
from feedalign.diagnosis.expectation import Direction, Expectation, Moment
from feedalign.diagnosis.result import Diagnosis
from feedalign.diagnosis.training import Trained

__all__ = [
    "Batches",
    "Diagnosis",
    "Direction",
    "Expectation",
    "Moment",
    "Trained",
    "arguments",
    "diagnose",
    "seeded",
]
