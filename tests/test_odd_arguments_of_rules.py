"""Every rule, measure and recipe × each argument × odd values.

A call works, or raises one of the house's own errors. What is handed to the user's own model or loss function is not
tried: errors of the user's code come out as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.odd import ODD
from torch.nn import functional

import feedalign as fa
from feedalign import alignment, feedback, networks, rules
from feedalign.errors import FeedalignError

X, Y = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
OF_THE_USERS_CODE = {"x", "y", "loss_fn", "example_input", "message", "writer"}
# A function is a legal entry, and a legal mask: it is called with the output, or with the inputs.
CALLED = {"output": ("class", "function"), "mask": ("class", "function")}


def model() -> networks.MLP:
    return networks.MLP([4, 5, 5, 3])


def net() -> fa.DFA:
    return fa.DFA(model())


def one_step(rule: Any) -> Callable[..., Any]:
    def step(**arguments: Any) -> None:
        functional.cross_entropy(rule(**arguments)(X), Y).backward()

    return step


def of_rule(rule: Any) -> Callable[[], dict[str, Any]]:
    def arguments() -> dict[str, Any]:
        signature = inspect.signature(rule).parameters
        return {name: model() if name == "model" else signature[name].default for name in signature}

    return arguments


def measured() -> dict[str, Any]:
    return {"net": net(), "loss_fn": functional.cross_entropy, "x": X, "y": Y}


def monitored(**arguments: Any) -> None:
    fa.AlignmentMonitor(**arguments).measure(0)


RULES = [getattr(rules, name) for name in rules.__all__ if isinstance(getattr(rules, name), type)]
RULES = [rule for rule in RULES if issubclass(rule, rules.Wrapped) and not inspect.isabstract(rule)]
RECIPES = [getattr(feedback, name) for name in feedback.__all__]
RECIPES = [each for each in RECIPES if hasattr(each, "draw") and hasattr(each, "__dataclass_fields__")]
GIVEN: dict[str, Any] = {"P": torch.eye(3), "arrays": torch.ones(5, 3), "channels": 1}


def of_recipe(recipe: Any) -> Callable[[], dict[str, Any]]:
    def arguments() -> dict[str, Any]:
        return {
            name: GIVEN.get(name, feedback.Gaussian() if name == "base" else parameter.default)
            for name, parameter in inspect.signature(recipe).parameters.items()
        }

    return arguments


# Name, function, and arguments that work; a new set of them for every call.
CALLS: list[tuple[str, Callable[..., Any], Callable[[], dict[str, Any]]]] = [
    *((rule.__name__, one_step(rule), of_rule(rule)) for rule in RULES),
    *((recipe.__name__, recipe, of_recipe(recipe)) for recipe in RECIPES),
    ("gradient_alignment", fa.gradient_alignment, lambda: measured() | {"at": "preactivation"}),
    ("weight_alignment", fa.weight_alignment, lambda: {"net": net()}),
    ("alignability", fa.alignability, lambda: {"net": net()}),
    ("conditioning", fa.conditioning, measured),
    ("cross_seed_overlap", fa.cross_seed_overlap, lambda: {"states": [model(), model()]}),
    ("descent", alignment.descent, lambda: measured() | {"lr": 0.1}),
    ("output_errors", alignment.output_errors, lambda: measured() | {"silent": False}),
    (
        "alignment_times",
        alignment.alignment_times,
        lambda: {"times": [0.0, 1, 2], "alignment": [[0.0, 0.5, 0.4]], "level": 0.2, "drop": 0.02},
    ),
    ("monitor", monitored, lambda: measured() | {"every": 1, "at": "preactivation", "conditioning": True}),
    ("check_rule", fa.check_rule, measured),
    ("get", rules.get, lambda: {"name": "dfa"}),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of a complex or read-only value
@pytest.mark.parametrize(("function", "arguments"), [call[1:] for call in CALLS], ids=[call[0] for call in CALLS])
def test_an_odd_argument_works_or_is_refused_in_the_houses_words(
    function: Callable[..., Any], arguments: Callable[[], dict[str, Any]]
) -> None:
    function(**arguments())
    wrong = []
    for name in arguments().keys() - OF_THE_USERS_CODE:
        for words, make in ODD.items():
            if words in CALLED.get(name, ()):
                continue
            try:
                function(**(arguments() | {name: make()}))
            except FeedalignError:
                continue
            except Exception as error:  # whatever it is, it is the fault that is looked for
                wrong.append(f"{name} = {words}: {type(error).__name__}: {error}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_a_network_that_does_not_fit_the_memory_is_refused() -> None:
    for make in (
        lambda: networks.MLP([10**9, 10**9]),
        lambda: networks.EnsembleMLP(10**12, [2, 2]),
        lambda: networks.ConvNet(classes=10**11),
        lambda: networks.ConvNet(channels=[10**10]),
    ):
        with pytest.raises(FeedalignError, match=r"need [0-9,.]+ GB, and this machine has [0-9,.]+ GB; give "):
            make()


def test_feedback_that_is_infinite_in_the_models_precision_is_refused() -> None:
    with pytest.raises(FeedalignError, match=r"'1' has an entry of size .*e\+06, which is infinite in .*float16; give"):
        fa.DFA(model().half(), feedback=feedback.Gaussian(1e6))
    fa.DFA(model(), feedback=feedback.Gaussian(1e6))
