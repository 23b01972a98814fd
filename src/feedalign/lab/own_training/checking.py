"""From a config as the user gave it to the config that is trained: every value checked, every choice made."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from feedalign.checks import (
    flag,
    number_at_least,
    number_between,
    one_of,
    refused,
    sequence,
    shown,
    whole_number,
    whole_numbers,
)
from feedalign.errors import ArgumentError
from feedalign.lab.options import TrainConfig

# The largest number that a weight in single precision can hold: a learning rate beyond it is no learning rate.
LARGEST = 3.4e38
MOST_MEASUREMENTS, MOST_LAYERS = 1000, 300
LEARNED = ("kolen-pollack", "direct-kolen-pollack")

# A field that is used only where another field has one of these values.
ONLY_FOR: dict[str, tuple[str, tuple[str, ...]]] = {
    "hidden": ("network", ("mlp",)),
    "bias": ("network", ("mlp",)),
    "channels": ("network", ("convnet",)),
    "activation": ("network", ("mlp", "convnet")),
    "momentum": ("optimizer", ("sgd",)),
    "feedback_lr": ("rule", LEARNED),
    "feedback_decay": ("rule", LEARNED),
}
_HINTS = get_type_hints(TrainConfig)


def check_values(config: TrainConfig) -> TrainConfig:
    """Return the config with plain Python values.

    Raises:
        ArgumentError: a value has the wrong type, or is out of range.
    """
    return TrainConfig(**{field.name: check_value(field.name, getattr(config, field.name)) for field in fields(config)})


def check_value(name: str, value: Any) -> Any:
    """Return the value of one field of a config as plain Python.

    Raises:
        ArgumentError: the value has the wrong type, or is out of range.
    """
    if value is None and type(None) in get_args(_HINTS[name]):
        return None
    if get_origin(_HINTS[name]) is Literal:
        return one_of(name, value, get_args(_HINTS[name]))
    if name in ("dataset", "network"):
        return _text(name, value)
    if name == "points":
        return tuple(_text(f"points[{i}]", entry) for i, entry in enumerate(sequence(name, value, "names of modules")))
    if name == "classes":
        return tuple(whole_numbers(name, value, 0))
    if name in ("hidden", "channels"):
        return _widths(name, value)
    if name == "bias":
        return flag(name, value)
    advice = "write the number without quotes" if isinstance(value, str) else ""
    if name in ("lr", "feedback_scale"):
        return number_between(name, value, 0, LARGEST, ends="(]", advice=advice)
    if name in ("label_noise", "momentum"):
        return number_between(name, value, 0, 1, ends="[]" if name == "label_noise" else "[)", advice=advice)
    if name in ("weight_decay", "feedback_lr", "feedback_decay"):
        return number_at_least(name, value, 0, advice=advice)
    if name == "measurements":
        return whole_number(name, value, 1, MOST_MEASUREMENTS, advice=advice)
    return whole_number(name, value, 1 if name in ("epochs", "batch_size", "probe") else 0, advice=advice)


def resolved(config: TrainConfig) -> TrainConfig:
    """Return the config with every choice made that was left open: equal runs have equal configs.

    Args:
        config: with checked values.
    """
    lr = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}[config.optimizer] if config.lr is None else config.lr
    weights, feedback, data = (
        config.seed if seed is None else seed for seed in (config.seed_weights, config.seed_feedback, config.seed_data)
    )
    return replace(config, lr=lr, seed=0, seed_weights=weights, seed_feedback=feedback, seed_data=data)


def purpose(config: TrainConfig, name: str) -> str | None:
    """Return what a field is for, if this config does not use the field; None if it does."""
    other, values = ONLY_FOR.get(name, ("", ()))
    if other and getattr(config, other) not in values:
        return f"{other} {' or '.join(values)}"
    if name == "points" and ":" not in config.network:
        return "a network of your own; those of mlp and convnet are their hidden layers"
    if name == "feedback_scale" and config.feedback == "automatic":
        return "feedback that is named, such as gaussian"
    return None


def unused(config: TrainConfig) -> list[str]:
    """Return the fields that were set although this config does not use them."""
    names = [field.name for field in fields(TrainConfig) if purpose(config, field.name) is not None]
    return [name for name in names if getattr(config, name) != getattr(TrainConfig, name)]


def refuse_unused(config: TrainConfig) -> None:
    """Raise ArgumentError if a field was set although the config does not use the field."""
    for name in unused(config):
        raise ArgumentError(
            f"{name}={shown(getattr(config, name))} has no effect here: it is for {purpose(config, name)}; leave it out"
        )


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise refused(name, "text that can be printed", value)


def _widths(name: str, value: object) -> tuple[int, ...]:
    widths = whole_numbers(name, value, 1)
    if not widths:
        raise ArgumentError(f"{name}=() leaves no hidden layer; give widths such as 100 100")
    if len(widths) > MOST_LAYERS:
        raise ArgumentError(f"{name} has {len(widths):,} layers; at most {MOST_LAYERS} are possible, so give fewer")
    return tuple(widths)
