"""Image data sets with pinned digests: fetch them, load them, prepare them, spoil their labels."""

from feedalign.data.fetching import fetch
from feedalign.data.image_data import ImageData
from feedalign.data.loading import NAMES, load
from feedalign.data.noise import label_noise
from feedalign.data.transforms import flatten, prepare, resize, standardise

__all__ = [
    "NAMES",
    "ImageData",
    "fetch",
    "flatten",
    "label_noise",
    "load",
    "prepare",
    "resize",
    "standardise",
]
