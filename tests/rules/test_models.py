"""The models people train: each learns under the rules, gives the outputs it gave, and comes back as it was."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError, OutputError, PointsError

# Float64's own precision, times the number of terms in a sum of these small shapes.
EXACT = 1e-12


class Residual(nn.Module):
    """A convolutional network of two residual blocks with batch norm, a point after each sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
            for _ in range(2)
        )
        self.sums = nn.ModuleList(nn.ReLU() for _ in range(2))
        self.readout = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for branch, after in zip(self.branches, self.sums, strict=True):
            h = after(h + branch(h))
        out: Tensor = self.readout(h.flatten(1))
        return out


class Encoder(nn.Module):
    """A Transformer encoder that labels every token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.readout(self.encoder(self.embed(tokens)))
        return out


class DecoderBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](h)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.merge(mixed.transpose(1, 2).flatten(2))
        out: Tensor = h + self.mlp(self.norms[1](h))
        return out


class Decoder(nn.Module):
    """A causal language model."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.blocks = nn.ModuleList(DecoderBlock(8) for _ in range(2))
        self.readout = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.readout(h)
        return out


class Recurrent(nn.Module):
    """GRU, LSTM or RNN over a whole sequence, read out at its end or at every step."""

    def __init__(self, kind: Any, every_step: bool = False) -> None:
        super().__init__()
        self.memory = kind(5, 6, batch_first=True)
        self.readout = nn.Linear(6, 3)
        self.every_step = every_step

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.memory(x)
        out: Tensor = self.readout(sequence if self.every_step else sequence[:, -1])
        return out


class CellLoop(nn.Module):
    """A cell that runs once a step: a point that runs several times."""

    def __init__(self, cell: Any = nn.RNNCell) -> None:
        super().__init__()
        self.cell = cell(5, 6)
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        out: Tensor = self.readout(state[0] if isinstance(state, tuple) else state)
        return out


class Stepwise(CellLoop):
    """The same with an output at every step."""

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(self.readout(state))
        return torch.stack(outputs, 1)


class TwoInputs(nn.Module):
    """A function of two inputs and a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.gate, self.readout = nn.Tanh(), nn.Linear(6, 3)

    def forward(self, a: Tensor, b: Tensor, *, scale: float = 1.0) -> Tensor:
        out: Tensor = self.readout(self.gate(scale * self.left(a) + self.right(b)))
        return out


class Named(NamedTuple):
    logits: Tensor
    hidden: Tensor


@dataclass
class Fields:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    note: str = "kept"


class Both(OrderedDict[str, Any]):
    """A dict whose keys are attributes too, as some libraries' model outputs are."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.__dict__[key] = value


MAKERS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any]] = {
    "tuple": (lambda logits, h: (h, logits), 1),
    "list": (lambda logits, h: [logits, {"h": h}], 0),
    "dict": (lambda logits, h: {"logits": logits, "aux": (h, 3), "none": None}, "logits"),
    "named tuple": (lambda logits, h: Named(logits, h), "logits"),
    "dataclass": (lambda logits, h: Fields(logits, (h,)), "logits"),
    "dict with attributes": (lambda logits, h: Both(logits=logits, hidden=h), "logits"),
    "nested": (lambda logits, h: {"heads": [h, (logits,)]}, lambda out: out["heads"][1][0]),
}


class Structured(nn.Module):
    """An MLP that returns its logits among other things."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.hidden, self.readout, self.aux = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)
        self.gate = nn.Tanh()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        h = self.gate(self.hidden(x))
        return self.make(self.readout(h), self.aux(h))


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, -2), y.flatten())


def floats(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int = 3) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


@dataclass
class Case:
    """A model, its points, and a batch."""

    make: Callable[[], nn.Module]
    points: Any
    x: Any
    y: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[Any, Any], Tensor] = cross_entropy

    def model(self) -> nn.Module:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return self.make()

    def wrapped(self, rule: Any = fa.DFA, model: nn.Module | None = None) -> Any:
        return rule(model or self.model(), points=self.points, **self.options)

    @property
    def inputs(self) -> tuple[Any, ...]:
        return self.x if isinstance(self.x, tuple) else (self.x,)


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2),
        nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def structured(name: str) -> Case:
    make, entry = MAKERS[name]

    def tap(output: Any) -> Tensor:
        found: Tensor = (
            entry(output) if callable(entry)
            else getattr(output, entry) if isinstance(entry, str) and not isinstance(output, dict)
            else output[entry]
        )  # fmt: skip
        return found

    return Case(
        lambda: Structured(make), ("gate",), floats(5, 4), labels(5), {"output": entry},
        lambda output, y: cross_entropy(tap(output), y),
    )  # fmt: skip


TOKENS = labels(3, 6, classes=11)
BATCH_DIMS = {"batch_dims": 2}
CASES: dict[str, Case] = {
    "mlp": Case(lambda: fa.networks.MLP([4, 7, 6, 3]), "auto", floats(5, 4), labels(5)),
    "convnet": Case(convnet, ("3", "7"), floats(5, 1, 8, 8), labels(5)),
    "residual": Case(Residual, ("stem", "sums.0", "sums.1"), floats(5, 1, 6, 6), labels(5)),
    "encoder": Case(Encoder, ("encoder.layers.0", "encoder.layers.1"), TOKENS, TOKENS.flip(1), BATCH_DIMS),
    "decoder": Case(Decoder, ("blocks.0", "blocks.1"), TOKENS[:, :-1], TOKENS[:, 1:], BATCH_DIMS),
    "gru": Case(lambda: Recurrent(nn.GRU), ("memory",), floats(4, 3, 5), labels(4)),
    "lstm": Case(lambda: Recurrent(nn.LSTM), ("memory",), floats(4, 3, 5), labels(4)),
    "rnn": Case(lambda: Recurrent(nn.RNN), ("memory",), floats(4, 3, 5), labels(4)),
    "gru at every step": Case(
        lambda: Recurrent(nn.GRU, True), ("memory",), floats(4, 3, 5), labels(4, 3), BATCH_DIMS
    ),
    "rnn cell": Case(CellLoop, ("cell",), floats(4, 3, 5), labels(4)),
    "lstm cell": Case(lambda: CellLoop(nn.LSTMCell), ("cell",), floats(4, 3, 5), labels(4)),
    "cell and outputs at every step": Case(
        Stepwise, ("cell",), floats(4, 3, 5), labels(4, 3), {"batch_dims": 1}
    ),
    "two inputs": Case(TwoInputs, ("gate",), (floats(5, 4), floats(5, 3, seed=2)), labels(5)),
    **{name: structured(name) for name in MAKERS},
}  # fmt: skip
DIRECT: dict[str, Any] = {
    "dfa": fa.DFA,
    "sign": lambda *a, **k: fa.DFA(*a, error="sign", **k),
    "drtp": fa.DRTP,
    "conditioned": fa.ConditionedDFA,
    "dkp": fa.DirectKolenPollack,
    "readout": fa.ReadoutOnly,
    "backprop": fa.Backprop,
}


@pytest.mark.parametrize("rule", sorted(DIRECT))
@pytest.mark.parametrize("name", CASES)
def test_every_gradient_is_the_reference(name: str, rule: str) -> None:
    case = CASES[name]
    check = fa.check_rule(case.wrapped(DIRECT[rule]), case.loss, case.x, case.y)
    assert check.worst < EXACT, check


@pytest.mark.parametrize("name", CASES)
def test_feedback_reaches_every_parameter(name: str) -> None:
    case = CASES[name]
    net = case.wrapped()
    case.loss(net(*case.inputs), case.y).backward()
    none = [key for key, p in net.model.named_parameters() if p.grad is None]
    assert none == (["aux.weight", "aux.bias"] if name in MAKERS else [])  # a head that the loss does not use
    report = fa.validate(case.model(), case.points, *case.inputs, **case.options)
    assert report.ok, report


@pytest.mark.parametrize("name", CASES)
def test_the_loss_falls(name: str) -> None:
    case = CASES[name]
    net = case.wrapped()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = case.loss(net(*case.inputs), case.y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Fields):
        return [output.logits, *output.hidden]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return [tensor for value in values for tensor in flat(value)]


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_models_own(name: str) -> None:
    case = CASES[name]
    model = case.model()
    expected = copy.deepcopy(model)(*case.inputs)
    output = case.wrapped(model=model)(*case.inputs)
    assert type(output) is type(expected)
    for one, other in zip(flat(output), flat(expected), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", CASES)
def test_unwrapping_leaves_no_trace(name: str) -> None:
    case = CASES[name]
    model = case.model()
    keys = list(model.state_dict())
    net = case.wrapped(model=model)
    case.loss(net(*case.inputs), case.y).backward()
    assert net.unwrap() is model
    assert list(model.state_dict()) == keys
    assert {f"model.{key}" for key in keys} <= set(net.state_dict())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert "forward" not in vars(module)
    model.zero_grad()
    case.loss(model(*case.inputs), case.y).backward()
    own = [p.grad for p in model.parameters()]
    plain = case.model()
    case.loss(plain(*case.inputs), case.y).backward()
    if name not in ("convnet", "residual"):  # whose running averages have moved; gradients do not use them
        assert list(model.state_dict()) == list(plain.state_dict())
    for one, other in zip(own, plain.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_alignment_can_be_measured(name: str) -> None:
    case = CASES[name]
    net = case.wrapped()
    cosines = fa.gradient_alignment(net, case.loss, case.x, case.y)
    assert cosines.layers.keys() == net.feedback_matrices.keys()
    assert -1 <= cosines.total <= 1


def test_everything_else_in_an_output_is_the_same_object() -> None:
    cache, frozen = object(), (1, [2])
    model = Structured(lambda logits, h: {"logits": logits, "cache": cache, "frozen": frozen, "kept": [h]})
    seen: list[Any] = []
    model.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    output = fa.DFA(model, points=("gate",), output="logits", example_input=floats(5, 4))(floats(5, 4))
    own = seen[-1]
    assert output is not own
    assert output.keys() == own.keys()
    assert [key for key in own if output[key] is own[key]] == ["cache", "frozen", "kept"]


# Torch's own tracing of an autograd function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["dict", "tuple", "named tuple", "dataclass"])
def test_a_structured_output_compiles(name: str) -> None:
    case = CASES[name]
    gradients = []
    for compiled in (False, True):
        net = fa.DFA(case.model(), case.points, example_input=case.x, **case.options)
        torch.compiler.reset()
        run = torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
        case.loss(run(case.x), case.y).backward()
        gradients.append(net.model.get_parameter("hidden.weight").grad)
    torch.testing.assert_close(*gradients)


# Written out by hand, without check_rule.


def test_every_token_is_sent_its_own_error_and_no_other() -> None:
    case = CASES["decoder"]
    net = case.wrapped().double()
    output = net(case.x)
    (error,) = torch.autograd.grad(case.loss(output, case.y), output)
    sent = torch.autograd.grad(case.loss(net(case.x), case.y), list(net.model.blocks[1].parameters()))
    twin: Any = case.model().double()
    h = twin.blocks[0](twin.embed(case.x) + twin.place(torch.arange(5)))
    h = twin.blocks[1](h.detach())
    F = net.feedback_matrices["blocks.1"]
    assert F.shape == (8, 11)
    signal = torch.stack([torch.stack([F @ e for e in sequence]) for sequence in error])
    expected = torch.autograd.grad(h, list(twin.blocks[1].parameters()), signal)
    for one, other in zip(sent, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)


def test_a_cell_is_sent_its_feedback_at_every_step_and_none_through_its_state() -> None:
    """W gets sum_t (F e) ⊙ (1 - h_t²) of each step alone: no error goes back in time."""
    case = CASES["rnn cell"]
    net = case.wrapped().double()
    x = case.x.double()
    output = net(x)
    loss = case.loss(output, case.y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    loss.backward()
    cell, h = net.model.cell, torch.zeros(4, 6, dtype=torch.float64)
    of_input, of_state = torch.zeros_like(cell.weight_ih), torch.zeros_like(cell.weight_hh)
    with torch.no_grad():
        for step in x.unbind(1):
            before, h = h, torch.tanh(step @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih + cell.bias_hh)
            delta = (error @ net.feedback_matrices["cell"].T) * (1 - h**2)
            of_input += delta.T @ step
            of_state += delta.T @ before
    torch.testing.assert_close(cell.weight_ih.grad, of_input, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(cell.weight_hh.grad, of_state, rtol=EXACT, atol=EXACT)


def test_within_a_recurrent_module_the_error_goes_back_in_time() -> None:
    """Of nn.RNN the sequence is the activation: each step has rows of F of its own, and backprop below it."""
    case = CASES["rnn"]
    net = case.wrapped().double()
    x = case.x.double()
    output = net(x)
    loss = case.loss(output, case.y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    loss.backward()
    twin: Any = case.model().double()
    sequence, _ = twin.memory(x)
    F = net.feedback_matrices["memory"].unflatten(0, (3, 6))
    (sequence * torch.einsum("bc,thc->bth", error, F)).sum().backward()
    for one, other in zip(net.model.memory.parameters(), twin.memory.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("time", [3, 4])
def test_a_recurrent_point_that_begins_with_time_is_refused(time: int) -> None:
    """Also where a batch of 4 hides it."""

    class TimeFirst(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            sequence, _ = self.memory(x.transpose(0, 1))
            out: Tensor = self.readout(sequence[-1])
            return out

    model = TimeFirst(nn.GRU)
    model.memory.batch_first = False
    message = "a GRU with batch_first=False" if time == 4 else r"the batch axes \(4,\); .*recurrent modules need"
    with pytest.raises(FeedbackShapeError, match=message):
        fa.DFA(model, points=("memory",))(floats(4, time, 5))
    assert [name for name, *_ in fa.validate(model, ("memory",), floats(4, time, 5)).problems] == ["memory"]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_the_last_state_of_a_recurrent_point_is_detached(kind: Any) -> None:
    class FromState(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            _, state = self.memory(x)
            out: Tensor = self.readout((state[0] if isinstance(state, tuple) else state)[-1])
            return out

    model = FromState(kind)
    net = fa.DFA(model, points=("memory",))
    net(floats(4, 3, 5)).sum().backward()
    assert model.memory.weight_ih_l0.grad.any()  # from the sequence, which is the activation
    with torch.no_grad():
        next(iter(net.feedback_matrices.values())).zero_()
    net.zero_grad()
    net(floats(4, 3, 5)).sum().backward()
    assert not model.memory.weight_ih_l0.grad.any()
    report = fa.validate(model, ("memory",), floats(4, 3, 5))
    assert [(name, "of which nothing reaches the output" in problem) for name, problem, _ in report.problems] == [
        ("memory", True)
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_other_entries_pass_no_point_and_train_their_own_head(name: str) -> None:
    """Of a loss that uses them too, the hidden layer gets F e of the one entry, the other head its true gradient."""
    case = CASES[name]
    net = case.wrapped().double()
    model, x = net.model, case.x.double()
    h = torch.tanh(model.hidden(x)).detach()
    logits = model.readout(h)
    (error,) = torch.autograd.grad(functional.cross_entropy(logits, case.y), logits)
    delta = (error @ net.feedback_matrices["gate"].T) * (1 - h**2)
    output = net(x)
    beside = next(tensor for tensor in flat(output) if tensor.shape == (5, 2))
    (case.loss(output, case.y) + beside.square().sum()).backward()
    torch.testing.assert_close(model.hidden.weight.grad, delta.T @ x, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(model.aux.weight.grad, 2 * model.aux(h).T @ h, rtol=EXACT, atol=EXACT)
    check = fa.check_rule(
        net, lambda out, y: case.loss(out, y) + next(t for t in flat(out) if t.shape == (5, 2)).square().sum(),
        x, case.y,
    )  # fmt: skip
    assert check.worst < EXACT


def test_what_the_model_makes_of_the_entry_elsewhere_is_no_part_of_the_error() -> None:
    class WithProbabilities(Structured):
        def forward(self, x: Tensor) -> Any:
            logits = self.readout(self.gate(self.hidden(x)))
            return {"logits": logits, "again": logits, "p": logits.softmax(-1)}

    model: Any = WithProbabilities(lambda logits, _: logits)
    net = fa.DFA(model, points=("gate",), output="logits")
    x = floats(5, 4)

    def learns(entry: str) -> list[str]:
        net.zero_grad()
        net(x)[entry].square().sum().backward()
        return [name for name, p in model.named_parameters() if p.grad is not None and name.endswith("weight")]

    assert learns("p") == ["readout.weight"]
    assert learns("again") == ["hidden.weight", "readout.weight"]  # the entry itself, under another key
    check = fa.check_rule(net, lambda out, _: out["p"].square().sum() + out["logits"].sum(), x, None)
    assert check.worst < EXACT


def test_inputs_by_keyword() -> None:
    model = TwoInputs()
    net = fa.DFA(model, points=("gate",))
    a, b = floats(5, 4), floats(5, 3)
    expected = model(a, b, scale=3.0)
    assert torch.equal(net(b=b, a=a, scale=3.0), expected)
    assert fa.validate(model, ("gate",), a, b=b, scale=3.0).ok
    net(a, b=b).sum().backward()
    assert model.left.weight.grad is not None


def test_a_whole_image_of_outputs_is_one_error() -> None:
    """An output [batch, channel, height, width] has the batch axis alone, which no default could know."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 3, padding=1))
    net = fa.DFA(model, points=("1",), batch_dims=1)
    x = floats(5, 1, 4, 4)
    assert net(x).shape == (5, 3, 4, 4)
    assert net.feedback_matrices["1"].shape == (2 * 16, 3 * 16)
    check = fa.check_rule(net, lambda out, y: functional.cross_entropy(out, y), x, labels(5, 4, 4))
    assert check.worst < EXACT
    net.double()
    h = model[1](model[0](x.double()))
    output = net(x.double())
    (e,) = torch.autograd.grad(functional.cross_entropy(output, labels(5, 4, 4)), output, retain_graph=True)
    functional.cross_entropy(output, labels(5, 4, 4)).backward()
    found = model[0].get_parameter("weight").grad
    F = net.feedback_matrices["1"].reshape(2, 4, 4, 3, 4, 4)
    (expected,) = torch.autograd.grad(h, model[0].get_parameter("weight"), torch.einsum("hijcuv,bcuv->bhij", F, e))
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("rule", sorted(DIRECT))
def test_an_output_without_a_class_axis(rule: str) -> None:
    """One number a sample, [batch], is one output."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))
    net = DIRECT[rule](model, points=("1",), batch_dims=1)
    assert net(floats(5, 4)).shape == (5,)
    check = fa.check_rule(net, functional.mse_loss, floats(5, 4), floats(5))
    assert check.worst < EXACT


def test_a_jacobian_is_taken_of_the_entry() -> None:
    """It is the transposed readout, so that the rule is backprop."""
    case = CASES["dict"]
    net = fa.DFA(case.model(), case.points, fa.feedback.Aligned(), example_input=case.x, **case.options)
    torch.testing.assert_close(net.feedback_matrices["gate"], net.model.get_parameter("readout.weight").T)
    cosines = fa.check_rule(net, case.loss, case.x, case.y).cosines
    assert cosines["hidden.weight"] == pytest.approx(1)


def test_a_jacobian_needs_a_point_that_the_output_depends_on() -> None:
    class Beside(Structured):
        def forward(self, x: Tensor) -> Tensor:
            h = self.hidden(x)
            self.gate(h)
            out: Tensor = self.readout(h)
            return out

    with pytest.raises(PointsError, match="point 'gate' gives an activation of which nothing reaches the output"):
        fa.DFA(Beside(MAKERS["dict"][0]), ("gate",), fa.feedback.Aligned())(floats(5, 4))


@pytest.mark.parametrize("rule", [fa.FA, fa.SignSymmetry, fa.KolenPollack, fa.Frozen])
def test_other_rules_take_the_options_too(rule: Any) -> None:
    model = Structured(MAKERS["dict"][0])
    options: dict[str, Any] = {"points": ("readout", "aux")}
    if rule is fa.Frozen:
        options = {"points": ("gate",), "blocks": ("gate",)}
    net = rule(model, output="logits", **options)
    check = fa.check_rule(net, lambda out, y: functional.cross_entropy(out["logits"], y), floats(5, 4), labels(5))
    assert check.worst < EXACT
    with pytest.raises(OutputError, match="is a dict without the entry 'logit'"):
        rule(model, output="logit", **options)(floats(5, 4))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        ("tuple", {}, r"output must be .* got tuple; output= says which entry carries the error, choose from: 0, 1"),
        ("dict", {"output": "logit"}, r"is a dict without the entry 'logit'; .*'logits', 'aux', 'none'"),
        ("dict", {"output": "none"}, "entry 'none' must be a floating-point Tensor .*, got NoneType"),
        ("dict", {"output": "aux"}, "entry 'aux' must be .*, got tuple; .*choose from: 0, 1"),
        ("tuple", {"output": 2}, "is a tuple without the entry 2; .*choose from: 0, 1"),
        ("named tuple", {"output": "logit"}, "is a Named without the entry 'logit'; .*'logits', 'hidden'"),
        ("dataclass", {"output": 0}, "is a Fields without the entry 0; .*'logits', 'hidden', 'note'"),
        ("tuple", {"output": lambda out: 2 * out[0]}, "a Tensor computed from an entry; .*compute in the loss"),
        ("tuple", {"output": 0, "batch_dims": 3}, r"must be .* with 3 batch axes, got shape \(5, 2\).*; batch_dims="),
    ],
)
def test_an_entry_that_can_carry_no_error_is_refused(make: str, options: dict[str, Any], message: str) -> None:
    model = Structured(MAKERS[make][0])
    with pytest.raises(OutputError, match=message):
        fa.DFA(model, points=("gate",), **options)(floats(5, 4))
    (problem,) = fa.validate(model, ("gate",), floats(5, 4), **options).problems
    assert problem.name == "output"


@pytest.mark.parametrize("batch_dims", [0, -1, 1.5])
def test_batch_dims_must_count_axes(batch_dims: Any) -> None:
    with pytest.raises(ArgumentError, match=f"batch_dims={batch_dims} must be a whole number of at least 1"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), batch_dims=batch_dims)


def test_outputs_at_every_step_and_a_cell_need_batch_dims() -> None:
    with pytest.raises(FeedbackShapeError, match=r"\(4, 6\), but the output has .* \(4, 3\); .*batch_dims="):
        fa.DFA(Stepwise(), points=("cell",))(floats(4, 3, 5))
