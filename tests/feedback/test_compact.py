"""Feedback of few stored numbers: the same gradients as F with all its entries, and no F in a training step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, left_by_backward
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import feedalign as fa
from feedalign import feedback
from feedalign.errors import ArgumentError, FeedbackShapeError

CLASSES = 7


def convnet() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 6, 3, padding=1, stride=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    ).double()
    return filled(model, generator)


class Pooled(nn.Module):
    """Tokens of a sequence through two layers, and their mean to the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, CLASSES)
        self.one, self.two = nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.head(self.two(self.mix(self.one(self.embed(x)))).mean(1))
        return h


class Translator(nn.Module):
    """An encoder whose mean joins every token of a decoder with another length."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.decode = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.head = nn.Linear(6, CLASSES)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        h: Tensor = self.head(self.decode(target) + self.encode(source).mean(1, keepdim=True))
        return h


def filled(model: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator).mul_(0.5)
    return model


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mlp() -> nn.Module:
    return fa.networks.MLP([3, 8, 5, CLASSES]).double()


def case(kind: str) -> tuple[nn.Module, tuple[str, ...], tuple[Tensor, ...]]:
    """Return a model, its points and its inputs."""
    if kind == "images":
        return convnet(), ("1", "3"), (numbers(5, 2, 6, 6),)
    if kind == "pooled":
        return filled(Pooled().double(), torch.Generator().manual_seed(0)), ("one", "two"), (numbers(5, 4, 3),)
    if kind == "two lengths":
        model = filled(Translator().double(), torch.Generator().manual_seed(0))
        return model, ("encode", "decode"), (numbers(5, 4, 3), numbers(5, 2, 3))
    return mlp(), ("1", "3"), (numbers(5, 3),)


CASES: list[tuple[str, Any]] = [
    ("images", feedback.Channelwise()),
    ("images", feedback.Channelwise({"1": 4})),
    ("images", feedback.Shared()),
    ("images", feedback.Sketched(3)),
    ("images", feedback.Sketched(3, feedback.Channelwise())),
    ("pooled", feedback.Tokenwise()),
    ("pooled", feedback.Automatic()),
    ("pooled", feedback.Tokenwise(feedback.Shared())),
    ("pooled", feedback.Sketched(3, feedback.Tokenwise(feedback.Shared()))),
    ("two lengths", feedback.Tokenwise()),
    ("two lengths", feedback.Tokenwise(feedback.Shared())),
    ("two lengths", feedback.Sketched(3, feedback.Tokenwise())),
    ("dense", feedback.Shared()),
    ("dense", feedback.Sketched(CLASSES)),
    ("dense", feedback.Sketched(3, feedback.Shared(feedback.Uniform()))),
    ("dense", feedback.Automatic()),
]
NAMES = [f"{kind}-{recipe}" for kind, recipe in CASES]
RULES: list[Any] = [
    (fa.DFA, {}),
    (fa.DFA, {"error": "sign"}),
    (fa.DRTP, {}),
    (fa.ConditionedDFA, {"every": 1}),
    (fa.DFA, {"recompute": True}),
    (fa.DirectKolenPollack, {}),
    (fa.DirectKolenPollack, {"recompute": True, "centred": False}),
]


def wrapped(rule: Any, kind: str, recipe: Any, **options: Any) -> tuple[Any, tuple[Tensor, ...], Any]:
    model, points, inputs = case(kind)
    net = rule(model, points, recipe, seed=3, example_input=inputs, **options)
    return net, inputs, step_of(inputs)


def step_of(inputs: tuple[Tensor, ...]) -> Any:
    def step(net: nn.Module) -> dict[str, Tensor]:
        net.zero_grad()
        output = net(*inputs).flatten(0, -2)
        functional.cross_entropy(output, torch.arange(len(output)) % CLASSES).backward()
        return left_by_backward(net)

    return step


def with_all_entries(net: Any, rule: Any, kind: str, **options: Any) -> Any:
    """Return the same model with the same feedback, of which all entries are held."""
    model, points, inputs = case(kind)
    return rule(model, points, feedback.FromArray(net.feedback_matrices), example_input=inputs, **options)


@pytest.mark.parametrize(("rule", "options"), RULES)
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_gradients_are_those_of_f_with_all_its_entries(kind: str, recipe: Any, rule: Any, options: Any) -> None:
    net, _, step = wrapped(rule, kind, recipe, **options)
    full = with_all_entries(net, rule, kind, **options)
    for _ in range(1 if net.learns_feedback else 2):  # the second step is behind a conditioner
        assert_same(step(net), step(full), **EXACT)


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_a_rule_draws_what_the_recipe_draws(kind: str, recipe: Any) -> None:
    """`InFull` goes by way of `draw_at`, and so does every recipe over another one."""
    net, *_ = wrapped(fa.DFA, kind, recipe)
    full, *_ = wrapped(fa.DFA, kind, feedback.InFull(recipe))
    single = {"rtol": 1e-5, "atol": 1e-6}  # recipes draw and multiply in single precision
    assert_same(net.feedback_matrices, full.feedback_matrices, **single)
    assert all(form.is_full for form in full.feedback.forms.values())


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_learned_feedback_is_the_nearest_of_its_form_to_what_all_entries_would_learn(kind: str, recipe: Any) -> None:
    """In least squares over all points: the gap is at right angles to every change of a stored number."""
    net, _, step = wrapped(fa.DirectKolenPollack, kind, recipe, lr=2.0)
    full = with_all_entries(net, fa.DirectKolenPollack, kind, lr=2.0)
    before = {name: F.clone() for name, F in net.feedback_matrices.items()}
    step(net), step(full)
    moved = {name: F.clone() for name, F in net.feedback_matrices.items()}
    assert any(not torch.allclose(moved[name], before[name], rtol=0.1) for name in moved)
    for key, buffer in net.feedback.named_buffers():
        if key == "/sketch":
            continue
        for i in {0, buffer.numel() // 2, buffer.numel() - 1}:
            buffer.view(-1)[i] += 1
            changes = {name: F - moved[name] for name, F in net.feedback_matrices.items()}
            buffer.view(-1)[i] -= 1
            products = [((full.feedback_matrices[name] - moved[name]) * changes[name]).sum() for name in moved]
            assert float(sum(products)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.ConditionedDFA, fa.DRTP])
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_the_state_is_what_is_stored_and_makes_the_round_trip(kind: str, recipe: Any, rule: Any) -> None:
    net, inputs, step = wrapped(rule, kind, recipe)
    step(net)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    model, points, _ = case(kind)
    for other in (rule(model, points, recipe, seed=9), rule(model, points, recipe, seed=9, example_input=inputs)):
        other.load_state_dict(state)
        assert_same(step(other), step(net), **EXACT)
        net.load_state_dict(state)
        other.load_state_dict(state)
        assert_same(other.state_dict(), state)


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack])
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_a_state_of_matrices_with_all_their_entries_still_loads(kind: str, recipe: Any, rule: Any, drawn: bool) -> None:
    """As versions before saved them; and a state of few numbers loads after that."""
    net, inputs, step = wrapped(rule, kind, recipe)
    state = net.state_dict()
    full = with_all_entries(net, rule, kind)
    model, points, _ = case(kind)
    other = rule(model, points, recipe, seed=9, **({"example_input": inputs} if drawn else {}))
    other.load_state_dict(full.state_dict())
    assert_same(step(other), step(full), **EXACT)
    assert_same(other.feedback_matrices, full.feedback_matrices, **EXACT)
    other.load_state_dict(state)
    assert_same(other.feedback_matrices, net.feedback_matrices, **EXACT)


def test_what_is_stored_is_as_small_as_predicted() -> None:
    def held(kind: str, recipe: Any) -> int:
        return sum(b.numel() for b in wrapped(fa.DFA, kind, recipe)[0].feedback.buffers())

    C = CLASSES
    assert held("images", feedback.Gaussian()) == (4 * 36 + 6 * 9) * C
    assert held("images", feedback.Channelwise()) == (4 + 6) * C
    assert held("images", feedback.Shared()) == 4 * 36 * C
    assert held("pooled", feedback.Tokenwise()) == (4 + 6) * C
    assert held("pooled", feedback.Tokenwise(feedback.Shared())) == 6 * C
    # A sign for each output.
    assert held("dense", feedback.Sketched(3)) == (8 + 5) * 3 + C
    assert held("dense", feedback.Sketched(3, feedback.Shared())) == 8 * 3 + C
    assert held("images", feedback.Sketched(3, feedback.Channelwise())) == (4 + 6) * 3 + C


def largest_memory(step: Any) -> int:
    """Return how many numbers in single precision the largest single request for memory was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    return int(max(event.self_cpu_memory_usage for event in seen.events())) // 4


WIDE: dict[str, Any] = {
    "convolutional": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 200)
        ),
        ("1",),
        (2, 3, 32, 32),
        feedback.Channelwise(),
    ),
    "tokens": (lambda: Pooled(), ("one", "two"), (2, 512, 3), feedback.Tokenwise()),
    "vocabulary": (
        # A readout of three weights for each output, so that no weight is as large as F of a wide layer.
        lambda: fa.networks.MLP([3, 512, 3, 3000]),
        ("1",),
        (2, 3),
        feedback.Sketched(2),
    ),
}


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.DRTP])
@pytest.mark.parametrize("name", WIDE)
def test_no_step_makes_a_tensor_of_the_size_of_f(name: str, rule: Any) -> None:
    make, points, shape, recipe = WIDE[name]
    net = rule(make(), points, recipe, example_input=torch.zeros(shape))
    x = torch.ones(shape)
    smallest = min(F.numel() for F in net.feedback_matrices.values())
    activation = max(place.features for place in net.feedback.places) * 2
    largest_weight = max(p.numel() for p in net.parameters())

    def step() -> None:
        functional.cross_entropy(net(x), torch.zeros(2, dtype=torch.int64)).backward()

    step()
    assert max(largest_weight, activation) < smallest
    # Gradients of weights, and activations with a little that a convolution works with.
    assert largest_memory(step) <= max(largest_weight, 2 * activation)


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.ConditionedDFA])
@pytest.mark.parametrize("kind", ["pooled", "two lengths"])
def test_every_batch_may_have_another_length(kind: str, rule: Any) -> None:
    """The gradients of each are those of a matrix that is drawn for this length."""
    net, inputs, _ = wrapped(rule, kind, None)
    for length in (1, 9, 4):
        others = (numbers(5, length, 3), *inputs[1:])
        model, points, _ = case(kind)
        arrays = {name: net.feedback[name].repeat(1 if name == "decode" else length, 1) for name in points}
        twin = rule(model, points, feedback.FromArray(arrays), example_input=others)
        if rule is fa.ConditionedDFA:
            twin.gathered.load_state_dict(net.gathered.state_dict())
        expected = step_of(others)(twin)
        assert_same(step_of(others)(net), expected, **EXACT)


def test_padding_changes_nothing_that_a_token_is_sent() -> None:
    net, *_ = wrapped(fa.DFA, "pooled", None)
    form, S = net.feedback.forms["one"], net.feedback["one"]
    message = numbers(5, CLASSES)
    short, long = (fa.rules.signal(message, S, form, (5, length, 4)) for length in (3, 8))
    assert torch.equal(short, long[:, :3])
    torch.testing.assert_close(short[:, 1], message @ S.T)


def test_an_encoder_is_sent_the_sum_of_the_errors_at_the_tokens_of_the_decoder() -> None:
    net, _, _ = wrapped(fa.DFA, "two lengths", None)
    message = numbers(5, 2, CLASSES)
    encode, decode = (net.feedback.forms[name] for name in ("encode", "decode"))
    assert (encode.summed, decode.summed) == (1, 0)
    sent = fa.rules.signal(message, net.feedback["encode"], encode, (5, 4, 6))
    torch.testing.assert_close(sent, (message.sum(1) @ net.feedback["encode"].T)[:, None].expand(5, 4, 6))


def test_several_lengths_under_a_matrix_for_one_length_are_told() -> None:
    net, *_ = wrapped(fa.DFA, "pooled", feedback.Gaussian())
    with pytest.raises(FeedbackShapeError, match=r"of several lengths or sizes give feedback=feedback\.Tokenwise\(\)"):
        net(numbers(5, 9, 3))


def test_images_of_another_size_are_sent_their_signal() -> None:
    net, *_ = wrapped(fa.DFA, "images", feedback.Channelwise())
    full, *_ = wrapped(fa.DFA, "images", feedback.Gaussian())
    x = numbers(5, 2, 8, 8)
    step_of((x,))(net)
    with pytest.raises(FeedbackShapeError, match="does not fit the activation"):
        full(x)


def test_the_sketch_keeps_the_length_of_a_column_and_needs_enough_outputs() -> None:
    net = fa.DFA(fa.networks.MLP([4, 400, 300]), feedback=feedback.Sketched(50))
    F = net.feedback_matrices["1"]
    # 400 · 50 independent numbers of variance 1/400: a relative standard deviation of √(2/20 000).
    assert float(F.square().sum()) / 300 == pytest.approx(1, abs=5 * math.sqrt(2 / 20_000))
    assert int(torch.linalg.matrix_rank(F)) == 50
    with pytest.raises(FeedbackShapeError, match="needs a model of at least 64 outputs, and this model has 3"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=feedback.Sketched())
    with pytest.raises(ArgumentError, match="makes a matrix for the model's own outputs"):
        feedback.Sketched(2, feedback.Aligned())


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.ConditionedDFA, fa.DRTP])
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_the_rule_is_that_of_the_reference(kind: str, recipe: Any, rule: Any) -> None:
    net, inputs, _ = wrapped(rule, kind, recipe)
    entries = net(*inputs).flatten(0, -2).shape[0]

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, -2), y)

    assert fa.check_rule(net, loss, inputs, torch.arange(entries) % CLASSES).worst < 1e-12


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_measures_see_the_same_as_with_all_entries(kind: str, recipe: Any) -> None:
    net, inputs, _ = wrapped(fa.DFA, kind, recipe)
    full = with_all_entries(net, fa.DFA, kind)
    entries = net(*inputs).flatten(0, -2).shape[0]
    y = torch.arange(entries) % CLASSES

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, -2), y)

    found, expected = (fa.gradient_alignment(each, loss, inputs, y) for each in (net, full))
    assert found.layers == pytest.approx(expected.layers, abs=1e-12)
    found_w, expected_w = fa.weight_alignment(net), fa.weight_alignment(full)
    assert found_w.layers == pytest.approx(expected_w.layers, abs=1e-12)


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_drawn_again_it_is_what_it_was(kind: str, recipe: Any) -> None:
    net, *_ = wrapped(fa.DirectKolenPollack, kind, recipe)
    before = {name: value.clone() for name, value in net.feedback.state_dict().items()}
    for buffer in net.feedback.buffers():
        buffer.fill_(99)
    net.reset_feedback()
    assert_same(net.feedback.state_dict(), before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler's own
@pytest.mark.parametrize(("kind", "recipe"), [CASES[0], CASES[5], CASES[9], CASES[14]])
@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack])
def test_compiled_it_is_the_same(kind: str, recipe: Any, rule: Any) -> None:
    net, _, step = wrapped(rule, kind, recipe)
    expected = step(net)
    other, *_ = wrapped(rule, kind, recipe)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    assert_same(step(compiled), expected, **EXACT)
    torch.compiler.reset()


def test_under_autocast_signals_have_the_precision_of_the_matrix() -> None:
    model, points, inputs = case("pooled")
    net = fa.DFA(model.float(), points, feedback.Sketched(3, feedback.Tokenwise()), example_input=inputs[0].float())
    with torch.autocast("cpu", torch.bfloat16):
        loss = functional.cross_entropy(net(inputs[0].float()), torch.arange(5))
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())
