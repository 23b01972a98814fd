"""What is measured: the angles of gradients and weights with the feedback, and of runs with one another."""

from feedalign.alignment.conditioning import AlignmentMatrix, Conditioning, Spectrum, conditioning
from feedalign.alignment.gradient import GradientAlignment, gradient_alignment
from feedalign.alignment.overlap import CrossSeedOverlap, cross_seed_overlap
from feedalign.alignment.weight import WeightAlignment, weight_alignment

__all__ = [
    "AlignmentMatrix",
    "Conditioning",
    "CrossSeedOverlap",
    "GradientAlignment",
    "Spectrum",
    "WeightAlignment",
    "conditioning",
    "cross_seed_overlap",
    "gradient_alignment",
    "weight_alignment",
]
