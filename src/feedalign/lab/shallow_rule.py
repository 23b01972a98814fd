"""The name that `theory.shallow` gives to a rule."""

from __future__ import annotations

from typing import Literal


def shallow_rule(name: str) -> Literal["dfa", "bp"]:
    """Return how `shallow.integrate` and `shallow.simulate` call the rule "dfa" or "backprop"."""
    names: dict[str, Literal["dfa", "bp"]] = {"dfa": "dfa", "backprop": "bp"}
    return names[name]
