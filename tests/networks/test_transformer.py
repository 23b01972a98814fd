"""The Transformer: what it computes, what it may see, and that every rule takes it."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError
from feedalign.networks import Transformer
from feedalign.rules import RULES

V, TIME, BATCH = 11, 6, 4
ROUNDING = 1e-12

both_norms = pytest.mark.parametrize("norm", ["pre", "post"])


def small(**changes: Any) -> Transformer:
    return Transformer(V, **{"width": 8, "heads": 2, "blocks": 2, "context": TIME, **changes})


def tokens(seed: int = 0) -> Tensor:
    return torch.randint(V, (BATCH, TIME), generator=torch.Generator().manual_seed(seed))


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, -2), targets.flatten())


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (BATCH, TIME, V)),
        ({"outputs": 3}, (BATCH, TIME, 3)),
        ({"outputs": 3, "pool": "mean", "causal": False}, (BATCH, 3)),
    ],
)
@both_norms
def test_shapes(norm: Any, changes: dict[str, Any], shape: tuple[int, ...]) -> None:
    net = small(norm=norm, **changes)
    assert net(tokens()).shape == shape
    assert net(tokens()[:, :2]).shape == (shape if len(shape) == 2 else (BATCH, 2, shape[2]))


@both_norms
def test_an_output_depends_on_no_later_token_if_causal_and_on_every_token_otherwise(norm: Any) -> None:
    x = tokens()
    for causal, t in itertools.product((True, False), range(1, TIME)):
        net = small(norm=norm, causal=causal).double()
        other = x.clone()
        other[:, t] = (other[:, t] + 1) % V
        moved = (net(x) - net(other)).abs().amax((0, 2)) > ROUNDING
        assert bool(moved[t:].all())
        assert bool(moved[:t].any()) is not causal
        assert causal or bool(moved.all())


@both_norms
def test_it_is_the_layer_of_torch(norm: Any) -> None:
    """A block computes what `nn.TransformerEncoderLayer` does with the same weights and a causal mask."""
    net = small(norm=norm).double()
    block: Any = net.get_submodule("block2")
    layer = nn.TransformerEncoderLayer(
        8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.attend.weight)
        layer.self_attn.in_proj_bias.copy_(block.attend.bias)
        layer.self_attn.out_proj.load_state_dict(block.project.state_dict())
        layer.linear1.load_state_dict(block.up.state_dict())
        layer.linear2.load_state_dict(block.down.state_dict())
    h = torch.randn(BATCH, TIME, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = nn.Transformer.generate_square_subsequent_mask(TIME, dtype=torch.float64)
    torch.testing.assert_close(block(h), layer(h, src_mask=mask), rtol=0, atol=ROUNDING)


def test_the_stream_begins_with_entries_of_size_one() -> None:
    """Two sums of uniform numbers on ±1, so variance 2/3; both embeddings are 64 · 96 numbers."""
    stream = Transformer(64, width=96, context=64).get_submodule("block1.embedding")(torch.arange(64)[None])
    assert float(stream.detach().var()) == pytest.approx(2 / 3, rel=0.05)


@both_norms
def test_a_tied_readout_is_one_parameter_with_the_embedding(norm: Any) -> None:
    net, untied = small(norm=norm, tied=True), small(norm=norm)
    readout = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    assert readout.weight is net.get_parameter("block1.embedding.tokens.weight")
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in net.parameters()) == 8 * V
    twin = copy.deepcopy(net)
    assert [m for m in twin.modules() if isinstance(m, nn.Linear)][-1].weight is twin.get_parameter(
        "block1.embedding.tokens.weight"
    )


def test_without_bias_there_is_none() -> None:
    names = [name for name, _ in small(bias=False, norm="pre").named_parameters()]
    assert names
    assert not any("bias" in name for name in names)


@pytest.mark.parametrize("tied", [False, True])
def test_the_seed_alone_decides_the_weights(tied: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = small(tied=tied, seed=3).state_dict()
        torch.manual_seed(2)
        again = small(tied=tied, seed=3).state_dict()
    assert list(one) == list(again)
    assert all(torch.equal(one[name], again[name]) for name in one)
    other = small(tied=tied, seed=4).state_dict()
    drawn = [name for name in one if "norm" not in name]
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


def test_construction_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    small()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("tied", [False, True])
def test_copies_and_saved_states_compute_the_same(tied: bool, tmp_path: Path) -> None:
    net, other, read = small(tied=tied), small(tied=tied, seed=1), small(tied=tied, seed=2)
    assert not torch.equal(net(tokens()), other(tokens()))
    other.load_state_dict(net.state_dict())
    save_model(net, str(tmp_path / "net.safetensors"))
    load_model(read, tmp_path / "net.safetensors")
    for same in (other, read, copy.deepcopy(net)):
        assert torch.equal(net(tokens()), same(tokens()))


def test_dropout_acts_in_training_only() -> None:
    net = small(dropout=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(net(tokens()), net(tokens()))
    net.eval()
    assert torch.equal(net(tokens()), net(tokens()))
    assert torch.equal(net(tokens()), small()(tokens()))


@pytest.mark.parametrize("rule", sorted(RULES))
@both_norms
def test_every_rule_gives_the_gradients_of_its_reference(norm: Any, rule: str) -> None:
    net = RULES[rule](small(norm=norm))
    assert fa.check_rule(net, loss, tokens(), tokens(1)).worst < ROUNDING


def test_an_encoder_that_pools_is_sent_one_error_for_all_its_tokens() -> None:
    net = fa.DFA(small(outputs=3, pool="mean", causal=False), example_input=tokens())
    assert {tuple(F.shape) for F in net.feedback_matrices.values()} == {(8 * TIME, 3)}
    labels = torch.tensor([0, 1, 2, 0])
    assert fa.check_rule(net, functional.cross_entropy, tokens(), labels).worst < ROUNDING


@both_norms
def test_points_auto_are_the_blocks_and_the_embedding_can_be_a_point_of_its_own(norm: Any) -> None:
    net = small(norm=norm)
    assert net.block_names == ("block1", "block2")
    every = ("block1.embedding", *net.block_names)
    for points in ("auto", net.block_names, every):
        assert not fa.validate(net, points, tokens()).problems
    wrapped = fa.DFA(net)
    assert wrapped.points == net.block_names
    wrapped = fa.DFA(wrapped.unwrap(), points=every)
    assert fa.check_rule(wrapped, loss, tokens(), tokens(1)).worst < ROUNDING


def test_of_tied_weights_validate_says_that_two_blocks_use_them() -> None:
    (problem,) = fa.validate(small(tied=True), "auto", tokens()).problems
    assert problem.name == "block1.embedding.tokens.weight"
    assert fa.check_rule(fa.DFA(small(tied=True)), loss, tokens(), tokens(1)).worst < ROUNDING


def test_shared_feedback_is_one_matrix_for_the_whole_stream() -> None:
    matrices = fa.DFA(small(), feedback=fa.feedback.Shared(), example_input=tokens()).feedback_matrices
    first, *others = matrices.values()
    assert len(others) == 1
    assert torch.equal(first, others[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 9}, "got width=9 and heads=2; every head gets"),
        ({"blocks": 0}, "blocks must be a whole number of at least 1, got 0"),
        ({"context": 2.5}, "context must be a whole number of at least 1, got 2.5"),
        ({"tied": True, "outputs": 3}, "got outputs=3, vocabulary=11 and tied=True; a tied readout has one output"),
        ({"norm": "none"}, "norm='none' is unknown; expected one of pre, post"),
        ({"pool": "first"}, "pool='first' is unknown; expected one of none, mean"),
        ({"dropout": 1}, r"dropout must be a number in \[0, 1\), got 1"),
        ({"causal": 1}, "causal must be True or False, got 1"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        (
            {"width": 2**24, "heads": 1},
            "the weights of width=16777216 need .* GB, and this machine has .* GB; give a smaller width",
        ),
    ],
)
def test_odd_arguments_say_what_was_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        small(**changes)


def test_odd_tokens_say_what_was_expected() -> None:
    with pytest.raises(ArgumentError, match="got 7 tokens, the network takes context=6 at most; cut the sequence"):
        small()(torch.zeros(1, 7, dtype=torch.int64))
    with pytest.raises(ArgumentError, match=r"tokens must be integers \[batch, token\], got torch.float32 of shape"):
        small()(torch.zeros(1, 3))
    with pytest.raises(ArgumentError, match=r"got torch.int64 of shape \[3\]"):
        small()(torch.zeros(3, dtype=torch.int64))
