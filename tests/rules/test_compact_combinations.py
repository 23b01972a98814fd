"""Every recipe of few numbers in every way to train: several processes, shards, autocast, compiled, recomputed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.processes import pair
from tests.cases.small import EXACT, assert_same, left_by_backward
from tests.rules.compact_processes import CASES, RECIPES, RULES, batch, model, trained, wrapped
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import feedalign as fa

States = dict[str, dict[str, Tensor]]
every_recipe = pytest.mark.parametrize("recipe", RECIPES)
every_rule = pytest.mark.parametrize("rule", RULES)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[States]:
    """Return what the two processes ended with, and what one process alone ended with, by case."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    with (
        pair("tests.rules.compact_processes", tmp_path_factory.mktemp("processes")) as saved,
        torch.random.fork_rng([]),
    ):
        alone = {case: trained(case, 0, 1) for case in CASES}
    return [*map(torch.load, saved), alone]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_on_the_joined_batch(states: list[States], case: str) -> None:
    """Weights, what is stored of the feedback, whether it learns or not, and what is measured of both."""
    first, second, joined = (of_run[case] for of_run in states)
    assert first.keys() == joined.keys()
    assert any(name.startswith("feedback.") for name in joined)
    assert any(name.startswith("angle of") for name in joined)
    for name, tensor in joined.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-9, atol=1e-11)
        assert torch.equal(second[name], first[name])


def in_full(rule: str, recipe: str, net: Any, **options: Any) -> Any:
    """Return the same model with the same feedback, of which all entries are stored."""
    kind, _ = RECIPES[recipe]
    feedback = fa.feedback.FromArray(net.feedback_matrices)
    return RULES[rule](model(kind), ("0", "1"), feedback, example_input=batch(kind)[0][:2], **options)


def gradients(net: nn.Module, recipe: str) -> dict[str, Tensor]:
    """Return the gradients of the second of two passes: what is learned in the first one counts, if anything is."""
    x, y = batch(RECIPES[recipe][0])
    for _ in range(2):
        net.zero_grad()
        functional.cross_entropy(net(x), y).backward()
    return left_by_backward(net)


@every_recipe
@every_rule
def test_recomputed_it_is_the_same(rule: str, recipe: str) -> None:
    kept, recomputed = wrapped(rule, recipe), wrapped(rule, recipe, recompute=True)
    assert_same(gradients(recomputed, recipe), gradients(kept, recipe), **EXACT)
    assert_same(recomputed.state_dict(), kept.state_dict(), **EXACT)


class Checkpointed(nn.Module):
    """A block of which no activation is kept."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, h: Tensor) -> Any:
        return checkpoint(self.block, h, use_reentrant=False)


@every_recipe
@every_rule
def test_with_checkpoints_inside_of_the_blocks_it_is_the_same(rule: str, recipe: str) -> None:
    body: Any = model(RECIPES[recipe][0])
    body[0], body[1] = Checkpointed(body[0]), Checkpointed(body[1])
    plain, net = wrapped(rule, recipe), wrapped(rule, recipe, body)
    found = {name.replace("block.", ""): one for name, one in gradients(net, recipe).items()}
    assert_same(found, gradients(plain, recipe), **EXACT)
    assert_same(net.feedback.state_dict(), plain.feedback.state_dict(), **EXACT)


@every_recipe
@every_rule
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler's own
def test_compiled_it_is_the_same(rule: str, recipe: str) -> None:
    torch.compiler.reset()
    plain, net = wrapped(rule, recipe), wrapped(rule, recipe)
    compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert_same(gradients(compiled, recipe), gradients(plain, recipe), **EXACT)
    assert_same(net.state_dict(), plain.state_dict(), **EXACT)


@every_recipe
@pytest.mark.parametrize("rule", ["DFA", "DirectKolenPollack"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_sends_what_all_entries_would(rule: str, recipe: str, dtype: torch.dtype) -> None:
    """The forward passes are the same; signals have the precision of what is stored."""
    kind, _ = RECIPES[recipe]
    x, y = batch(kind)
    net: Any = wrapped(rule, recipe).float()
    full: Any = in_full(rule, recipe, wrapped(rule, recipe)).float()
    found = []
    for each in (net, full):
        with torch.autocast("cpu", dtype=dtype):
            loss = functional.cross_entropy(each(x.float()), y)
        loss.backward()
        found.append(left_by_backward(each))
        assert all(gradient.dtype == torch.float32 for gradient in found[-1].values())
    # Signals differ in single precision, and a block's own backward pass rounds them to half of it.
    close: Any = {"rtol": 0.02, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 0.005, "atol": 1e-4}
    assert_same(*found, **close)


@every_recipe
def test_a_gradient_scaler_changes_no_update(recipe: str) -> None:
    """A power of two scales every number exactly, as long as none leaves the range."""
    kind, _ = RECIPES[recipe]
    states = []
    for scale in (1.0, 2.0**8):
        net: Any = wrapped("DFA", recipe).float()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        for step in range(3):
            x, y = batch(kind, step)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = functional.cross_entropy(net(x.float()), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        states.append(net.state_dict())
    assert_same(*states, rtol=0, atol=0)


def test_the_cases_are_all_the_compact_recipes_and_compositions_with_few_numbers() -> None:
    """Each recipe that the package calls compact, but for the one that a rule takes by itself."""
    used = {type(recipe).__name__ for _, recipe in RECIPES.values()} | {"Automatic"}
    compact = {
        name
        for name in fa.feedback.__all__
        if isinstance(each := getattr(fa.feedback, name), type) and hasattr(each, "form_at")
    }
    assert used == compact
