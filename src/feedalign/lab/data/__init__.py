"""Image data sets with pinned digests: fetch them, load them, prepare them, spoil their labels."""

from feedalign.extras import needs

with needs("lab", __name__):
    from feedalign.lab.data.fetching import fetch
    from feedalign.lab.data.image_data import ImageData
    from feedalign.lab.data.loading import NAMES, load
    from feedalign.lab.data.noise import label_noise
    from feedalign.lab.data.transforms import flatten, prepare, resize, standardise

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
