"""The data of a run: a data set by its name, or an .npz file of the user's."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feedalign.errors import ArgumentError
from feedalign.lab.data import ImageData, label_noise, load, of_classes, resize, standardise
from feedalign.lab.options import TrainConfig
from feedalign.streams import torch_generator

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MOST_CLASSES = 10_000


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and labels, ready for a network.

    Attributes:
        train_x: [n, features] or [n, channels, height, width], float32, standardised.
        train_y: int64 [n], with label noise.
        noisy: bool [n], the samples whose label was drawn at random.
        test_x: [m, ...].
        test_y: int64 [m].
        classes: labels are 0 to classes − 1.
    """

    train_x: Tensor
    train_y: Tensor
    noisy: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int


def samples_of(config: TrainConfig, digest: str) -> Samples:
    """Load the data of a run and draw its label noise. Images are flat, [n, features], for an mlp.

    Args:
        config: resolved.
        digest: of the file, as `digest_of_file` gave it; empty for a data set that has a name.

    Raises:
        ArgumentError: the data set is unknown or has no such classes, the file does not hold what is needed, or there
            are too few samples.
        DataError: the data set was not fetched, or is damaged.
    """
    data = _loaded(config.dataset, digest, config.image_size, config.classes)
    train_x, clean, test_x = data.train_images, data.train_labels, data.test_images
    n = config.train_samples or len(train_x)
    if n > len(train_x):
        raise ArgumentError(f"train_samples={n} must be at most {len(train_x)}, the training samples that there are")
    if config.batch_size > n:
        raise ArgumentError(f"batch_size={config.batch_size} must be at most {n}, the number of training samples")
    seed = config.seed_data
    assert seed is not None  # the config is resolved
    if n < len(train_x):  # at random: a file may be sorted by its labels
        drawn = torch.randperm(len(train_x), generator=torch_generator(seed, "data"))[:n]
        train_x, clean = train_x[drawn], clean[drawn]
    train_y, noisy = label_noise(clean, config.label_noise, data.classes, torch_generator(seed, "label noise"))
    if config.network == "mlp":
        train_x, test_x = train_x.flatten(1), test_x.flatten(1)
    return Samples(train_x, train_y, noisy, test_x, data.test_labels, data.classes)


def digest_of_file(dataset: str) -> str:
    """Return a digest of the user's .npz file; an empty text if the data set is a name.

    Raises:
        ArgumentError: there is no such file.
    """
    if not dataset.endswith(".npz"):
        return ""
    try:
        return hashlib.sha256(Path(dataset).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ArgumentError(
            f"dataset={dataset!r}: cannot read the file ({error.strerror}); give an .npz file with the arrays "
            f"{', '.join(ARRAYS)}"
        ) from error


@lru_cache(maxsize=1)  # the runs of a sweep mostly share their data, which may be large
def _loaded(dataset: str, digest: str, image_size: int, kept: tuple[int, ...]) -> ImageData:
    """Return the classes that are kept of a data set, standardised."""
    data = _read(dataset, digest) if digest else load(dataset)
    if kept:
        data = of_classes(data, kept)
        if not len(data.train_labels) or not len(data.test_labels):
            raise ArgumentError(
                f"{dataset} has no training or no test samples of the classes {list(kept)}; keep others"
            )
    train_x, test_x = data.train_images, data.test_images
    if train_x.ndim == 2:
        if image_size:
            raise ArgumentError(f"image_size={image_size} is for images; x_train of {dataset} holds vectors")
        train_x, test_x = (x.flatten(1) for x in standardise(train_x[..., None, None], test_x[..., None, None]))
    else:
        if image_size:
            train_x, test_x = resize(train_x, image_size), resize(test_x, image_size)
        train_x, test_x = standardise(train_x, test_x)
    return replace(data, train_images=train_x.float(), test_images=test_x.float())


def _read(dataset: str, digest: str) -> ImageData:
    """Return what an .npz file holds, images or vectors, once its four arrays fit together."""
    content = Path(dataset).read_bytes()
    if hashlib.sha256(content).hexdigest()[:16] != digest:
        raise ArgumentError(f"dataset={dataset!r} has changed since the command began; run the command again")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            there = file.files
            arrays = {name: file[name] for name in ARRAYS if name in there}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ArgumentError(
            f"dataset={dataset!r} is no .npz file of numbers; make one with numpy.savez({dataset!r}, x_train=..., "
            "y_train=..., x_test=..., y_test=...)"
        ) from error
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise ArgumentError(
            f"dataset={dataset!r} has no {', '.join(missing)}; expected the arrays {', '.join(ARRAYS)}, got "
            f"{', '.join(there) or 'none'}"
        )
    for part in ("train", "test"):
        arrays[f"x_{part}"] = _inputs(dataset, f"x_{part}", arrays[f"x_{part}"])
        arrays[f"y_{part}"] = _labels(dataset, f"y_{part}", arrays[f"y_{part}"])
        count, labels = len(arrays[f"x_{part}"]), len(arrays[f"y_{part}"])
        if count != labels or not count:
            raise ArgumentError(f"{dataset}: x_{part} has {count} samples and y_{part} {labels}; give as many, not 0")
    train_x, train_y, test_x, test_y = (torch.from_numpy(arrays[name]) for name in ARRAYS)
    if train_x.shape[1:] != test_x.shape[1:]:
        raise ArgumentError(
            f"{dataset}: a sample of x_train is {list(train_x.shape[1:])}, one of x_test {list(test_x.shape[1:])}; "
            "give samples of one shape"
        )
    return ImageData(dataset, train_x, train_y, test_x, test_y, classes=int(max(train_y.max(), test_y.max())) + 1)


def _inputs(dataset: str, name: str, array: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return inputs as float32 [n, features] or [n, channels, height, width]; [n, height, width] has one channel."""
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3, 4):
        raise ArgumentError(
            f"{dataset}: {name} has type {array.dtype} and shape {list(array.shape)}, expected numbers [n, features], "
            "[n, height, width] or [n, channels, height, width]"
        )
    with np.errstate(over="ignore"):  # what does not fit is infinite, and told
        inputs = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(inputs).all():
        raise ArgumentError(f"{dataset}: {name} holds numbers that are not finite; remove these samples")
    return inputs[:, None] if inputs.ndim == 3 else inputs


def _labels(dataset: str, name: str, array: NDArray[np.generic]) -> NDArray[np.int64]:
    whole = array.dtype.kind in "iu" and array.ndim == 1
    if not whole or (array.size and not 0 <= int(array.min()) <= int(array.max()) < MOST_CLASSES):
        raise ArgumentError(
            f"{dataset}: {name} has type {array.dtype} and shape {list(array.shape)}, expected whole numbers [n] from "
            f"0 to at most {MOST_CLASSES - 1:,}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)
