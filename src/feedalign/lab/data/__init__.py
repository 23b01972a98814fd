"""Data: image sets with pinned digests, text as characters, and tasks that are drawn; label noise to spoil them."""

from feedalign.extras import needs

with needs("lab", __name__):
    from feedalign.lab.data.fetching import fetch
    from feedalign.lab.data.image_data import ImageData, of_classes
    from feedalign.lab.data.loading import NAMES, load
    from feedalign.lab.data.ngrams import NGram, ngram
    from feedalign.lab.data.noise import accuracy_by_mask, label_noise
    from feedalign.lab.data.recall import NO_TARGET, associative_recall
    from feedalign.lab.data.text import TextData, every_window, load_text, python_topics, windows
    from feedalign.lab.data.transforms import flatten, prepare, resize, standardise

__all__ = [
    "NAMES",
    "NO_TARGET",
    "ImageData",
    "NGram",
    "TextData",
    "accuracy_by_mask",
    "associative_recall",
    "every_window",
    "fetch",
    "flatten",
    "label_noise",
    "load",
    "load_text",
    "ngram",
    "of_classes",
    "prepare",
    "python_topics",
    "resize",
    "standardise",
    "windows",
]
