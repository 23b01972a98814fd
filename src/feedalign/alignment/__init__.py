"""What is measured: angles of gradients and weights with the feedback, of runs with one another; conditioning."""

from feedalign.alignment.bounds import Alignability, LayerAlignability, alignability
from feedalign.alignment.conditions import Conditioning, conditioning, output_errors
from feedalign.alignment.descent import Descent, descent
from feedalign.alignment.gradient import GradientAlignment, gradient_alignment
from feedalign.alignment.monitor import AlignmentMonitor, Measurement
from feedalign.alignment.overlap import CrossSeedOverlap, cross_seed_overlap
from feedalign.alignment.spectra import Spectrum, spectrum_of
from feedalign.alignment.timing import AlignmentTimes, Moment, alignment_times, onset
from feedalign.alignment.weak import AlignmentMatrix
from feedalign.alignment.weight import WeightAlignment, weight_alignment

__all__ = [
    "Alignability",
    "AlignmentMatrix",
    "AlignmentMonitor",
    "AlignmentTimes",
    "Conditioning",
    "CrossSeedOverlap",
    "Descent",
    "GradientAlignment",
    "LayerAlignability",
    "Measurement",
    "Moment",
    "Spectrum",
    "WeightAlignment",
    "alignability",
    "alignment_times",
    "conditioning",
    "cross_seed_overlap",
    "descent",
    "gradient_alignment",
    "onset",
    "output_errors",
    "spectrum_of",
    "weight_alignment",
]
