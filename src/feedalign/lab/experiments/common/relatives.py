"""Data sets with pictures like those of another one take its configs: Fashion-MNIST those of MNIST, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

# The same sizes, channels and numbers of pictures. CIFAR-100 has a hundred classes instead of ten.
RELATIVES = {"mnist": "fashion-mnist", "cifar10": "cifar100"}


def with_relatives(configs: Mapping[str, dict[str, Any]], **of_cifar100: Any) -> dict[str, dict[str, Any]]:
    """Return configs by data set and preset, each data set followed by its relative, if it has one.

    Args:
        configs: by data set and preset.
        **of_cifar100: fields that CIFAR-100 has otherwise than CIFAR-10.
    """
    every = {}
    for name, presets in configs.items():
        every[name] = presets
        if (relative := RELATIVES.get(name)) is not None:
            other = of_cifar100 if relative == "cifar100" else {}
            every[relative] = {preset: replace(config, dataset=relative, **other) for preset, config in presets.items()}
    return every
