"""Random streams: every source of random numbers in the house is derived from a seed and a purpose.

Two streams with different purposes do not hold the same numbers, also where their seeds are equal. So the initial
weights under `seed=0` have nothing in common with the feedback under `seed=0`. Streams with equal purposes and
different seeds have nothing in common either.

The purposes are:

* `"weights"`: initial weights of a network;
* `"feedback"`, with the name of a point: the feedback matrix of that point;
* `"shared feedback"`, `"sketch"` and `"fitted feedback"`: feedback that belongs to several points together;
* `"magnitudes"`: what sign symmetry draws anew for each batch;
* `"order"`: the order of the samples;
* `"check of a layer"`: the input on which a sequential rule tries whether a layer is linear;
* `"scatter"`: which rows of a feedback matrix change places;
* `"gradient noise"`: what an experiment adds to gradients;
* `"split"`: which stretches of a text are for validation;
* `"subset"`: which training images of a data set are kept;
* `"label noise"`, `"simulation"`, `"data"`, `"teacher"`, `"start"`, `"readout"`, `"probe"`, `"network"`: what the name
  says; most of them belong to the experiments.

The derivation: `numpy.random.SeedSequence` mixes the seed, as entropy, with the SHA-256 digest of the purpose, as spawn
key. It gives the same numbers on every machine. A stream of torch on the CPU starts from 32 bits, because torch's
generator reads no more of its seed. Two given streams of torch are therefore equal with probability 2⁻³².
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, purpose: str, *which: int | str) -> int:
    """Return a seed for something that takes a seed: a whole number of at least 0 and below 2⁶³.

    Args:
        seed: what the user gave. Seeds that are equal modulo 2⁶⁴ are one seed.
        purpose: what the random numbers are for.
        which: tells streams of one purpose apart, for example the number of a draw or the name of a point. The number 1
            and the text "1" are two different streams.
    """
    words = _sequence(seed, purpose, which).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def numpy_generator(seed: int, purpose: str, *which: int | str) -> np.random.Generator:
    """Return numpy's generator at the beginning of a stream; arguments as in `derived_seed`."""
    # PCG64 by name: numpy may change what default_rng() takes.
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, which)))


def torch_generator(seed: int, purpose: str, *which: int | str) -> torch.Generator:
    """Return torch's generator on the CPU at the beginning of a stream; arguments as in `derived_seed`."""
    import torch  # loaded when first used, so that the theory's streams need no torch

    # The lower 32 bits are the ones that torch reads.
    return torch.Generator("cpu").manual_seed(derived_seed(seed, purpose, *which))


def _sequence(seed: int, purpose: str, which: tuple[int | str, ...]) -> np.random.SeedSequence:
    # JSON tells all tuples of numbers and texts apart. The digest has a fixed length, and Python's own hash() is
    # another one in every process.
    digest = hashlib.sha256(json.dumps([purpose, *which]).encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, len(digest), 4)]
    return np.random.SeedSequence(seed % 2**64, spawn_key=words)
