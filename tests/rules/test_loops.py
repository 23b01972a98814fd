"""A wrapped model in loops as people write them: each habit leaves the rule's update what it is without."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import feedalign as fa
from feedalign.errors import ArgumentError, PointsError
from feedalign.rules.direct.cut import LARGE

EXACT: Any = {"rtol": 1e-11, "atol": 1e-13}
FIXED = [fa.DFA, fa.FA]
LEARNED = [fa.KolenPollack, fa.DirectKolenPollack, fa.ConditionedDFA]
# Torch's own tracing of an autograd function.
TRACED = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def network(seed: int = 0) -> Any:
    return fa.networks.MLP((5, 8, 6, 3), seed=seed).double()


def batch(n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator, dtype=torch.float64), torch.randint(3, (n,), generator=generator)


def gradients(net: nn.Module, x: Tensor, y: Tensor, loss_scale: float = 1.0) -> list[Tensor]:
    """Return the gradients of one backward pass, added to what is there."""
    (loss_scale * functional.cross_entropy(net(x), y)).backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def trained(net: nn.Module, run: Callable[[Tensor], Tensor], steps: int = 3) -> dict[str, Tensor]:
    """Return the state, feedback included, after a few steps."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        x, y = batch(seed=step)
        optimizer.zero_grad()
        functional.cross_entropy(run(x), y).backward()
        optimizer.step()
    return net.state_dict()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: Any) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}))


@TRACED
@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler"),
                pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # inductor's own
            ],
        ),
    ],
)
@pytest.mark.parametrize("rule", [*FIXED, *LEARNED])
def test_compiled_steps_are_the_uncompiled_ones(rule: Any, backend: str) -> None:
    torch.compiler.reset()
    plain, net = rule(network()), rule(network())
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    assert_same(trained(net, compiled), trained(plain, plain), **EXACT)


@TRACED
@pytest.mark.parametrize("rule", [*FIXED, *LEARNED])
def test_networks_of_one_kind_share_what_is_compiled(rule: Any) -> None:
    torch.compiler.reset()
    x, y = batch()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(3):
            compiled: Any = torch.compile(rule(network(), seed=seed), backend="eager", fullgraph=True)
            expected = gradients(rule(network(), seed=seed), x, y)
            for one, other in zip(gradients(compiled, x, y), expected, strict=True):
                torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("rule", FIXED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gradient_scaler_changes_no_update(rule: Any, dtype: torch.dtype) -> None:
    """A power of two scales every number exactly, as long as none leaves the range."""
    states = []
    for scale in (1.0, 2.0**8):
        net = rule(network().float())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        for step in range(3):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = functional.cross_entropy(net(x.float()), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == scale
        states.append(net.state_dict())
    # Below 6e-5 half precision loses bits that a scaled gradient keeps.
    assert_same(*states, rtol=0, atol=1e-6 if dtype == torch.float16 else 0)


@pytest.mark.parametrize("rule", FIXED)
def test_an_overflow_skips_the_step_and_leaves_the_rule_usable(rule: Any) -> None:
    net = rule(network())
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=float("inf"))
    x, y = batch()
    scaler.scale(functional.cross_entropy(net(x), y)).backward()
    scaler.step(optimizer)
    assert_same(net.state_dict(), before)
    net.zero_grad()
    for found, expected in zip(gradients(net, x, y), gradients(rule(network()), x, y), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("rule", FIXED)
def test_gradients_accumulated_over_parts_are_those_of_the_whole_batch(rule: Any) -> None:
    x, y = batch(12)
    net = rule(network())
    whole = gradients(net, x, y)
    net.zero_grad()
    for part in range(3):
        found = gradients(net, x[4 * part : 4 * part + 4], y[4 * part : 4 * part + 4], 1 / 3)
    for accumulated, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(accumulated, expected, **EXACT)


@pytest.mark.parametrize("rule", [*FIXED, *LEARNED])
def test_several_forward_passes_before_their_backward_passes(rule: Any) -> None:
    """Each backward pass belongs to its own forward pass; learned feedback is used as it was then."""
    (x, y), (u, v) = batch(seed=0), batch(seed=1)
    net = rule(network())
    losses = functional.cross_entropy(net(x), y), functional.cross_entropy(net(u), v)
    losses[0].backward()
    first = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    for found, expected in zip(first, gradients(rule(network()), x, y), strict=True):
        assert torch.equal(found, expected)
    net.zero_grad()
    losses[1].backward()
    if rule not in LEARNED:
        found = [p.grad for p in net.parameters() if p.grad is not None]
        for one, expected in zip(found, gradients(rule(network()), u, v), strict=True):
            assert torch.equal(one, expected)


@pytest.mark.parametrize("rule", [*FIXED, *LEARNED])
def test_the_output_may_be_worked_on_in_place(rule: Any) -> None:
    x, y = batch()
    found = []
    for halved in (Tensor.mul_, Tensor.mul):
        net = rule(network())
        functional.cross_entropy(halved(net(x), 0.5), y).backward()
        found.append([p.grad for p in net.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rule", [*FIXED, *LEARNED])
def test_clipping_shortens_the_whole_update_and_no_feedback(rule: Any) -> None:
    x, y = batch()
    net = rule(network())
    free = gradients(net, x, y)
    feedback = {name: matrix.clone() for name, matrix in net.feedback_matrices.items()}
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1e-2)
    torch.testing.assert_close(norm, torch.cat([g.flatten() for g in free]).norm(), **EXACT)
    for parameter, gradient in zip(net.parameters(), free, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * 1e-2 / (norm + 1e-6), **EXACT)
    assert_same(net.feedback_matrices, feedback)


class Residual(nn.Module):
    """Blocks with dropout, two points each; `save` says what is run again in the backward pass."""

    def __init__(self, save: str = "nothing", *, reentrant: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Dropout(0.3), nn.Linear(9, 5), nn.Tanh()) for _ in range(3)
        )
        self.readout = nn.Linear(5, 3)
        self.save, self.reentrant = save, reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.body, x, use_reentrant=self.reentrant) if self.save == "all" else self.body(x)
        logits: Tensor = self.readout(x)
        return logits

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant) if self.save == "blocks" else block(x)
        return x


@pytest.mark.parametrize("rule", [*FIXED, *LEARNED])
@pytest.mark.parametrize("save", ["blocks", "all"])
@pytest.mark.parametrize("inside", [False, True])
def test_activation_checkpointing_changes_no_gradient(rule: Any, save: str, inside: bool) -> None:
    """Also where points lie inside what is run again, and where its dropout must draw the same masks."""
    x, y = batch()
    points: Any = [f"blocks.{i}" for i in range(3)] + [f"blocks.{i}.1" for i in range(3)] * inside
    if issubclass(rule, fa.rules.SequentialRule):
        points = [f"blocks.{i}.{j}" for i in range(3) for j in ([0, 3] if inside else [3])][1:]
    found = []
    for kept in ("nothing", save):
        torch.manual_seed(0)
        net = rule(Residual(kept).double(), points)
        found.append((gradients(net, x, y), copy.deepcopy(net.feedback_matrices)))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(one, other)
    assert_same(found[1][1], found[0][1])


@pytest.mark.parametrize("rule", [fa.DFA, fa.FA])
def test_points_in_a_reentrant_checkpoint_are_refused(rule: Any) -> None:
    """Its forward pass records no graph and its second run is none of the rule's, so the true gradient would pass."""
    x, _ = batch()
    net = rule(Residual("all", reentrant=True).double(), ["blocks.1.3"])
    with pytest.raises(PointsError, match=r"'blocks.1.3' ran without gradients.*use_reentrant=False"):
        net(x.requires_grad_())


def test_function_transforms_are_refused_by_torch() -> None:
    """And not left out of the graph: `torch.func` wants another kind of autograd function."""
    net, (x, y) = fa.DFA(network()), batch()
    state: dict[str, Tensor] = dict(net.named_parameters())

    def loss(state: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(torch.func.functional_call(net, state, (x,)), y)

    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(loss)(state)


@pytest.mark.parametrize("rule", [*FIXED, *LEARNED])
def test_a_deep_copy_shares_nothing_and_learns_the_same(rule: Any) -> None:
    net = rule(network())
    trained(net, net, 1)
    twin = copy.deepcopy(net)
    before = copy.deepcopy(net.state_dict())
    after = trained(twin, twin)
    assert_same(net.state_dict(), before)
    assert_same(trained(net, net), after)


@pytest.mark.parametrize("rule", [*FIXED, *LEARNED, fa.Backprop])
@pytest.mark.parametrize("save", [pickle.dumps, lambda net: torch.save(net, io.BytesIO())])
def test_pickling_is_refused_and_the_state_is_the_way(rule: Any, save: Any) -> None:
    net = rule(network())
    for wrapped in (net, net.model) if rule is not fa.Backprop else (net,):
        with pytest.raises(ArgumentError, match=r"cannot be pickled.*net\.state_dict\(\)"):
            save(wrapped)
    state = io.BytesIO()
    torch.save(net.state_dict(), state)
    state.seek(0)
    other = rule(network(seed=1), seed=1)
    other.load_state_dict(torch.load(state))
    assert_same(trained(other, other), trained(net, net))
    save(net.unwrap())


@pytest.mark.parametrize("rule", FIXED)
def test_no_optimizer_moves_feedback(rule: Any) -> None:
    """Weight decay alone, here without any gradient, would shrink whatever a group holds."""
    net = rule(network())
    feedback = {name: matrix.clone() for name, matrix in net.feedback_matrices.items()}
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.5},
        {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        gradients(net, *batch(seed=step))
        optimizer.step()
    assert_same(net.feedback_matrices, feedback)
    assert not any(matrix.requires_grad for matrix in net.feedback_matrices.values())


@pytest.mark.parametrize("rule", [*FIXED, *LEARNED, fa.Frozen])
def test_unwrapped_the_model_learns_by_backprop_and_bears_no_hook(rule: Any) -> None:
    model, (x, y) = network(), batch()
    keys = list(model.state_dict())
    net = rule(model)
    gradients(net, x, y)
    model.zero_grad()
    assert net.unwrap() is model
    for module in model.modules():
        held = {name: value for name, value in vars(module).items() if "hooks" in name}
        assert not any(len(value) for value in held.values() if hasattr(value, "__len__")), held
        assert "forward" not in vars(module)
    assert list(model.state_dict()) == keys
    for found, expected in zip(gradients(model, x, y), gradients(network(), x, y), strict=True):
        assert torch.equal(found, expected)


class Noisy(nn.Module):
    """Dropout, batch statistics, a module that runs twice, and a skip connection past a point."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.norm, self.drop, self.readout = nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.first[0](x)
        h = self.first(x) + branch
        logits: Tensor = self.readout(self.drop(self.norm(self.twice(self.twice(h)))) + h)
        return logits


def both(rule: Any, options: dict[str, Any], **compared: Any) -> list[Any]:
    """Return two equal wrapped models, one of them with the options compared, and start their randomness alike."""
    nets = []
    for more in ({}, compared):
        torch.manual_seed(0)
        nets.append(rule(Noisy().double(), ["first", "twice"], **options, **more))
    return nets


DIRECT: list[Any] = [
    (fa.DFA, {}),
    (fa.DFA, {"error": "sign"}),
    (fa.DRTP, {}),
    (fa.DFA, {"batch_dims": 1}),
    (fa.DirectKolenPollack, {}),
    (fa.ConditionedDFA, {"every": 1}),
]


@pytest.mark.parametrize(("rule", "options"), DIRECT)
def test_recomputed_gradients_are_the_kept_ones(rule: Any, options: Any) -> None:
    """So are the batch statistics, the random state, and the gradient of an input."""
    results = []
    for net in both(rule, options, recompute=True):
        torch.manual_seed(1)
        for step in range(2):
            x, y = batch(seed=step)
            functional.cross_entropy(net(x.requires_grad_()), y).backward()
        found = {name: p.grad for name, p in net.named_parameters()}
        results.append({**found, **dict(net.named_buffers()), "x": x.grad, "random": torch.rand(3)})
    kept, recomputed = results
    for name, tensor in kept.items():
        torch.testing.assert_close(recomputed[name], tensor, **EXACT)


def test_a_recomputed_step_begins_with_the_buffers_of_the_first_run() -> None:
    x, y = batch()
    steps = []
    for recompute in (False, True):
        model: Any = network().train()
        model[2] = nn.utils.parametrizations.spectral_norm(model[2])
        model[2].parametrizations.weight[0].load_state_dict(spectral_state(model[2]))
        net = fa.DFA(model, recompute=recompute)
        found = gradients(net, x, y)
        steps.append((found, [buffer.clone() for buffer in model.buffers()]))
    for kept, recomputed in zip(*steps, strict=True):
        for one, other in zip(kept, recomputed, strict=True):
            torch.testing.assert_close(one, other, **EXACT)


def spectral_state(layer: nn.Module) -> dict[str, Tensor]:
    """Return vectors of a norm that has not converged, the same each time."""
    generator = torch.Generator().manual_seed(0)
    state = layer.get_submodule("parametrizations.weight.0").state_dict()
    return {
        name: functional.normalize(torch.randn(v.shape, generator=generator, dtype=v.dtype), dim=0)
        for name, v in state.items()
    }


def test_a_recomputed_step_is_proved_measured_and_repeated() -> None:
    """`check_rule` and `gradient_alignment` take it; a second backward pass of one forward pass adds the same."""
    x, y = batch()
    net = fa.DFA(network(), recompute=True)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12
    kept = fa.gradient_alignment(fa.DFA(network()), functional.cross_entropy, x, y)
    assert fa.gradient_alignment(net, functional.cross_entropy, x, y).total == kept.total
    loss = functional.cross_entropy(net(x), y)
    once = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    loss.backward()
    for parameter, gradient in zip(net.parameters(), once, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("inside", [False, True])
def test_recomputing_keeps_the_precision_of_the_forward_pass(inside: bool) -> None:
    """Also where the backward pass itself runs under autocast, whose cached casts record no graph."""
    x, y = batch()
    found = []
    for recompute in (False, True):
        net = fa.DFA(network().float(), recompute=recompute)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(net(x.float()), y)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        found.append([p.grad for p in net.parameters() if p.grad is not None])
    for recomputed, kept in zip(*found, strict=True):
        assert torch.equal(recomputed, kept)


WIDE = LARGE // 128  # with a batch of 128, each signal is made when its block's turn comes


@pytest.mark.parametrize(("rule", "options"), DIRECT[:4])
def test_large_signals_are_those_of_the_rule(rule: Any, options: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 3, generator=generator), torch.arange(128) % 3
    net = rule(fa.networks.MLP([3, WIDE, WIDE // 16, WIDE, 3], seed=0), **options)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12


class Spied(Tensor):
    """A feedback matrix that watches its products: how many signals were made, and how many are alive at a time."""

    made: ClassVar[list[weakref.ref[Tensor]]] = []
    most: ClassVar[int] = 0

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result: Any = super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        if function is functional.linear:
            result = result.as_subclass(Tensor)
            cls.made.append(weakref.ref(result))
            cls.most = max(cls.most, sum(one() is not None for one in cls.made))
        return result


def test_one_large_signal_exists_at_a_time() -> None:
    net = fa.DFA(fa.networks.MLP([3, WIDE, 5, WIDE, 5, WIDE, 3], seed=0))
    for name, buffer in list(net.feedback.named_buffers()):
        if len(buffer) == WIDE:
            setattr(net.feedback, name, buffer.as_subclass(Spied))
    functional.cross_entropy(net(torch.ones(128, 3)), torch.arange(128) % 3).backward()
    assert (len(Spied.made), Spied.most) == (3, 1)


class Saved:
    """A Tensor that autograd has saved."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def most_saved(depth: int, *, recompute: bool) -> int:
    """Return the largest number of Tensors that autograd holds at a time in a step."""
    alive: weakref.WeakSet[Saved] = weakref.WeakSet()
    most = 0

    def pack(tensor: Tensor) -> Saved:
        nonlocal most
        if tensor.data_ptr() in parameters:  # the model holds those
            return Saved(tensor)
        saved = Saved(tensor.detach())  # an operation's own output would hold the operation, which holds it
        alive.add(saved)
        most = max(most, len(alive))
        return saved

    net = fa.DFA(fa.networks.MLP([5] * depth + [3]).double(), recompute=recompute)
    parameters = {parameter.data_ptr() for parameter in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        gradients(net, *batch())
    return most


def test_a_recomputed_step_holds_the_graph_of_one_block_however_many_there_are() -> None:
    assert most_saved(12, recompute=True) == most_saved(4, recompute=True)
    assert most_saved(12, recompute=False) > most_saved(4, recompute=False) > most_saved(4, recompute=True)


@pytest.mark.parametrize("width", [5, WIDE])
def test_what_else_comes_to_an_activation_is_added(width: int) -> None:
    """A loss on the activation itself, in the same backward pass or in another one."""
    x, y = torch.ones(128, 3).double(), torch.arange(128) % 3
    found = []
    for together in (True, False):
        seen: list[Tensor] = []
        model: Any = fa.networks.MLP([3, width, 3], seed=0).double()
        model[1].register_forward_hook(lambda _module, _inputs, h, seen=seen: seen.append(h))
        net = fa.DFA(model)
        error, other = functional.cross_entropy(net(x), y), seen[-1].square().mean()
        if together:
            (error + other).backward()
        else:
            error.backward(retain_graph=True)
            other.backward()
        found.append([p.grad for p in net.parameters()])
    alone = torch.autograd.grad(functional.cross_entropy(net(x), y), list(net.parameters()))
    h = model[1](model[0](x))
    added = torch.autograd.grad(h.square().mean(), list(model[0].parameters()))
    for one, other_way, sent, more in zip(*found, alone, [*added, 0, 0], strict=True):
        torch.testing.assert_close(one, other_way, **EXACT)
        torch.testing.assert_close(one, sent + more, **EXACT)


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack])
def test_recomputing_goes_with_checkpointed_blocks(rule: Any) -> None:
    """Each of which is then a block of the rule, with its point where it ends."""
    x, y = batch()
    found = []
    for save, recompute in (("nothing", False), ("blocks", True)):
        torch.manual_seed(0)
        net = rule(Residual(save).double(), [f"blocks.{i}" for i in range(3)], recompute=recompute)
        found.append([*gradients(net, x, y), *net.feedback_matrices.values()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_recomputing_takes_the_error_of_a_tensor_only() -> None:
    with pytest.raises(
        ArgumentError, match=r"recompute=True with output='logits'.*wrap a model that returns this Tensor"
    ):
        fa.DFA(network(), output="logits", recompute=True)
