"""The contract of every measure: it takes what the model takes, and the net and all random states are as before.

One model draws from every random generator, keeps a state in buffers, attributes, lists and dicts, and has batch norm,
dropout, gradients, hooks and modules in both modes. Each measure must leave all of this as it is, for every kind of
input. Two threads may measure two nets at once.
"""

from __future__ import annotations

import copy
import random
from collections import UserDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.cases.models import floats, labels
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import feedalign as fa
from feedalign.alignment import descent, output_errors
from feedalign.anatomy import mapped


class Spiking(nn.Module):
    """A layer with a state of its own, in every place where people keep one, that draws from every generator."""

    mem: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mem", torch.zeros(6))
        self.potential, self.trace, self.steps = torch.zeros(6), torch.zeros(6), 0
        self.spikes: list[Tensor] = []
        self.memories: dict[str, Any] = {"v": torch.zeros(6), "old": [torch.zeros(6)]}
        self.recent: deque[int] = deque(maxlen=3)
        self.seen: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        now = x.detach().flatten(0, -2).mean(0)
        self.mem = 0.9 * self.mem + now
        self.potential = 0.9 * self.potential + now
        self.trace += now
        self.steps += 1
        self.spikes.append(now)
        self.memories["v"] = self.memories["v"] + now
        self.memories["old"][0].add_(now)
        self.recent.append(self.steps)
        self.seen.add(self.steps)
        self.last_input = x
        noise = float(torch.rand(())) + random.random() + np.random.rand()  # noqa: NPY002
        return torch.tanh(x * (1 + 0.1 * noise) + self.mem + self.potential + self.trace)


class Body(nn.Module):
    """What all models share, behind the way in which they take their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Linear(5, 6), nn.BatchNorm1d(6), Spiking()
        self.second, self.drop = nn.Linear(6, 6), nn.Dropout(0.3)
        self.end, self.readout = nn.Tanh(), nn.Linear(6, 3)

    def body(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.first(x)))
        out: Tensor = self.readout(self.end(self.second(self.drop(h))))
        return out


class OneTensor(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class TwoTensors(Body):
    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return self.body(torch.cat([a * scale, b], -1))


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class OfMapping(Body):
    def forward(self, batch: Any) -> Tensor:
        return self.body(torch.cat([batch["a"], batch["b"]], -1))


class OfPair(Body):
    def forward(self, batch: Pair) -> Tensor:
        return self.body(torch.cat([batch.a, batch.b], -1))


class OfPacked(Body):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.GRU(4, 5, batch_first=True)

    def forward(self, sequences: PackedSequence) -> Tensor:
        steps, lengths = pad_packed_sequence(self.memory(sequences)[0], batch_first=True)
        return self.body(steps[torch.arange(len(lengths)), lengths - 1])


N = 12
A, B, Y = floats(N, 2), floats(N, 3, seed=2), labels(N)
JOINED = torch.cat([A, B], -1)
INPUTS: dict[str, tuple[Callable[[], Body], Any]] = {
    "Tensor": (OneTensor, JOINED),
    "tuple": (TwoTensors, (A, B)),
    "keywords": (TwoTensors, {"b": B, "a": A}),
    "keywords that are no Tensors": (TwoTensors, {"b": B, "a": A, "scale": 1.0}),
    "BatchEncoding": (TwoTensors, UserDict({"a": A, "b": B})),
    "one dict": (OfMapping, {"a": A, "b": B}),
    "one BatchEncoding": (OfMapping, UserDict({"a": A, "b": B})),
    "named tuple": (OfPair, Pair(A, B)),
    "packed sequence": (OfPacked, pack_padded_sequence(floats(N, 4, 4), [4, 3, 2] * (N // 3), True, False)),
}
POINTS = ("act", "end")


def given(x: Any) -> tuple[Any, ...]:
    return x if type(x) is tuple else (x,)


def prepared(kind: str, rule: Any = fa.DFA) -> Any:
    """Return a net that has made a step, in which nothing is as it was made."""
    make, x = INPUTS[kind]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = make()
        net = rule(model, "auto" if issubclass(rule, fa.rules.SequentialRule) else POINTS, seed=1)
        by_keyword = "a" in x and make is TwoTensors if isinstance(x, dict | UserDict) else False
        output = net(**x) if by_keyword else net(*given(x))
        functional.cross_entropy(output, Y).backward()
    model.drop.eval()
    model.end.register_full_backward_hook(lambda *_: None)
    model.readout.register_forward_hook(lambda *_: None)
    return net


MEASURES: dict[str, Callable[[Any, Any], Any]] = {
    "gradient at preactivations": lambda net, x: fa.gradient_alignment(net, functional.cross_entropy, x, Y),
    "gradient at points": lambda net, x: fa.gradient_alignment(net, functional.cross_entropy, x, Y, at="point"),
    "gradient at parameters": lambda net, x: fa.gradient_alignment(
        net, functional.cross_entropy, x, Y, at="parameters"
    ),
    "weights": lambda net, _: fa.weight_alignment(net),
    "alignability": lambda net, _: fa.alignability(net),
    "conditioning": lambda net, x: fa.conditioning(net, functional.cross_entropy, x, Y),
    "errors": lambda net, x: output_errors(net, functional.cross_entropy, x, Y),
    "silent errors": lambda net, x: output_errors(net, functional.cross_entropy, x, Y, silent=True),
    "descent": lambda net, x: descent(net, functional.cross_entropy, x, Y, lr=0.1),
    "monitor": lambda net, x: fa.AlignmentMonitor(net, functional.cross_entropy, x, Y, conditioning=True).measure(0),
    "overlap": lambda net, _: fa.cross_seed_overlap([net, net]),
    "check of the rule": lambda net, x: fa.check_rule(net, functional.cross_entropy, x, Y),
    "diagnosis": lambda net, x: fa.diagnose(net, functional.cross_entropy, [(x, Y)], steps=2),
}
OF_SEQUENTIAL = ("weights", "errors", "silent errors", "descent", "monitor", "overlap", "check of the rule")
MODES = [nullcontext, torch.no_grad, torch.inference_mode]
CASES = [
    *((measure, kind, fa.DFA, nullcontext) for measure in MEASURES for kind in INPUTS),
    *((measure, "packed sequence", fa.DFA, mode) for measure in MEASURES for mode in MODES[1:]),
    *((measure, "keywords", fa.FA, mode) for measure in OF_SEQUENTIAL for mode in MODES),
    *((measure, "tuple", rule, nullcontext) for measure in MEASURES for rule in (fa.ConditionedDFA, fa.Backprop)),
    *((measure, "tuple", fa.DirectKolenPollack, mode) for measure in MEASURES for mode in MODES),
]


def numbers() -> Iterator[Any]:
    """Yield all random states."""
    yield torch.get_rng_state()
    yield random.getstate()
    yield from np.random.get_state()  # noqa: NPY002


def snapshot(net: nn.Module) -> dict[str, Any]:
    """Return everything that a user could see of a net: the objects themselves, and copies of what they hold."""
    (act,) = (module for module in net.modules() if isinstance(module, Spiking))
    found: dict[str, Any] = {f"random {i}": copy.deepcopy(state) for i, state in enumerate(numbers())}
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        found[name] = tensor
        found[f"{name} holds"] = tensor.detach().clone()
        found[f"{name} has the gradient"] = tensor.grad
        found[f"{name} has a gradient of"] = None if tensor.grad is None else tensor.grad.clone()
        found[f"{name} learns"] = tensor.requires_grad
    for name, module in net.named_modules():
        found[f"{name} trains"] = module.training
        for key, value in vars(module).items():
            if "hooks" in key and hasattr(value, "__len__"):
                found[f"{name}.{key}"] = list(value)
    for key, value in vars(act).items():
        if not key.startswith("_"):
            found[f"act.{key}"] = value
            found[f"act.{key} holds"] = [one.detach().clone() for one in numbers_in(value)]
    return found


def numbers_in(value: Any) -> list[Any]:
    """Return the Tensors and numbers in a value, each as a Tensor."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [one for each in value.values() for one in numbers_in(each)]
    if isinstance(value, list | deque | set):
        return [one for each in value for one in numbers_in(each)]
    return [torch.tensor(value)] if isinstance(value, int | float) else []


def assert_as_before(after: dict[str, Any], before: dict[str, Any]) -> None:
    assert after.keys() == before.keys()
    for name, value in before.items():
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            assert len(after[name]) == len(value), name
            assert all(torch.equal(a, b) for a, b in zip(after[name], value, strict=True)), name
        elif isinstance(value, Tensor | np.ndarray):
            same = after[name] is value if " " not in name else bool((after[name] == value).all())
            assert same, name
        else:
            assert after[name] is value or after[name] == value, name


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize(("measure", "kind", "rule", "within"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_a_measure_takes_the_input_and_leaves_no_trace(measure: str, kind: str, rule: Any, within: Any) -> None:
    net, x = prepared(kind, rule), INPUTS[kind][1]
    before = snapshot(net)
    with within():
        MEASURES[measure](net, mapped(x, torch.clone) if isinstance(x, tuple) else x)  # made in this mode
    assert_as_before(snapshot(net), before)


@pytest.mark.parametrize("within", MODES)
@pytest.mark.parametrize("kind", INPUTS)
def test_validation_takes_the_input_and_leaves_no_trace(kind: str, within: Any) -> None:
    make, x = INPUTS[kind]
    model = prepared(kind).unwrap()
    before = snapshot(model)
    keywords = dict(x) if make is TwoTensors and isinstance(x, dict | UserDict) else {}
    with within():
        assert not fa.validate(model, POINTS, *(() if keywords else given(x)), **keywords).problems
    assert_as_before(snapshot(model), before)


# Those that run the model, and whose numbers depend on its weights.
SERIAL = [measure for measure in MEASURES if measure not in ("overlap", "weights", "alignability", "silent errors")]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("measure", SERIAL)
def test_two_threads_may_measure_two_nets(measure: str) -> None:
    """Each finds what it finds alone. The nets draw no random numbers, which all threads share."""
    nets = [nn_without_noise(seed) for seed in range(2)]
    alone = [text(MEASURES[measure](net, JOINED)) for net in nets]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda net: text(MEASURES[measure](net, JOINED)), nets))
    assert together == alone
    assert alone[0] != alone[1]


def nn_without_noise(seed: int) -> Any:
    return fa.DFA(fa.networks.MLP([5, 6, 6, 3], seed=seed), seed=seed)


def text(found: Any) -> str:
    return repr(found) if isinstance(found, Tensor) else repr(vars(found))
