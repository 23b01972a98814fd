"""MLPs and ensembles of them: network i of an ensemble is, in every respect, the MLP with seed i."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from feedalign.errors import ArgumentError
from feedalign.networks import MLP, EnsembleMLP
from feedalign.rules import DFA, Backprop, DirectRule, ReadoutOnly

SIZES = (7, 6, 5, 3)
SEEDS = (3, 0, 11)
BATCH = 9

every_network = pytest.mark.parametrize(
    ("activation", "bias"), list(itertools.product(["tanh", "relu", "linear"], [True, False]))
)


def ensemble_and_singles(activation: str = "tanh", bias: bool = True) -> tuple[EnsembleMLP, list[MLP]]:
    """In float64, cast after they were drawn."""
    ensemble = EnsembleMLP(len(SEEDS), SIZES, activation, bias=bias, seeds=SEEDS).double()
    return ensemble, [MLP(SIZES, activation, bias=bias, seed=seed).double() for seed in SEEDS]


def inputs(seed: int = 0) -> Tensor:
    """[E, batch, in] in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(SEEDS), BATCH, SIZES[0], generator=generator, dtype=torch.float64)


def labels() -> Tensor:
    return torch.randint(SIZES[-1], (len(SEEDS), BATCH), generator=torch.Generator().manual_seed(1))


@every_network
def test_network_i_starts_bit_for_bit_as_the_mlp_with_its_seed(activation: str, bias: bool) -> None:
    ensemble = EnsembleMLP(len(SEEDS), SIZES, activation, bias=bias, seeds=SEEDS)
    for seed, state in zip(SEEDS, ensemble.state_dicts(), strict=True):
        alone = MLP(SIZES, activation, bias=bias, seed=seed).state_dict()
        assert list(state) == list(alone)
        for name in alone:
            assert torch.equal(state[name], alone[name])


@every_network
def test_network_i_computes_what_the_mlp_does(activation: str, bias: bool) -> None:
    ensemble, singles = ensemble_and_singles(activation, bias)
    x = inputs()
    together = ensemble(x)
    assert together.shape == (len(SEEDS), BATCH, SIZES[-1])
    for i, single in enumerate(singles):
        torch.testing.assert_close(together[i], single(x[i]), rtol=0, atol=1e-12)


def test_one_batch_goes_to_all_of_them() -> None:
    ensemble, _ = ensemble_and_singles()
    x = inputs()[0]
    torch.testing.assert_close(ensemble(x), ensemble(x.expand(len(SEEDS), -1, -1)), rtol=0, atol=0)


def summed(output: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, -2), labels.flatten(), reduction="sum")


@pytest.mark.parametrize("rule", [nn.Sequential, Backprop, DFA, ReadoutOnly])
@every_network
def test_a_summed_loss_gives_each_network_the_gradient_it_has_alone(
    activation: str, bias: bool, rule: type[DirectRule] | type[nn.Sequential]
) -> None:
    ensemble, singles = ensemble_and_singles(activation, bias)
    wrap: Callable[[nn.Module], nn.Module] = (lambda net: rule(net, seed=5)) if issubclass(rule, DirectRule) else rule
    x, y = inputs(), labels()
    summed(wrap(ensemble)(x), y).backward()
    compared = 0
    for i, single in enumerate(singles):
        summed(wrap(single)(x[i]), y[i]).backward()
        for alone, together in zip(single.parameters(), ensemble.parameters(), strict=True):
            assert (alone.grad is None) == (together.grad is None)
            if alone.grad is not None and together.grad is not None:
                shared = together.grad[i].reshape(alone.shape)
                torch.testing.assert_close(shared, alone.grad, rtol=0, atol=1e-10)
                compared += int(alone.grad.abs().max() > 0)
    layers = 1 if rule is ReadoutOnly else len(SIZES) - 1
    assert compared == len(SEEDS) * layers * (1 + bias)


def test_construction_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    MLP(SIZES, seed=4)
    EnsembleMLP(2, SIZES)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_seed_decides_nothing() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = MLP(SIZES)
        torch.manual_seed(2)
        other = MLP(SIZES)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_each_seed_gives_another_network_and_0_is_one_of_them() -> None:
    weights = [MLP(SIZES, seed=seed).get_parameter("0.weight") for seed in range(4)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(weights, 2))
    assert torch.equal(weights[0], MLP(SIZES).get_parameter("0.weight"))


def test_the_seeds_of_an_ensemble_count_from_0() -> None:
    counted = EnsembleMLP(3, SIZES)
    for a, b in zip(counted.parameters(), EnsembleMLP(3, SIZES, seeds=(0, 1, 2)).parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_dicts_load_into_single_networks() -> None:
    ensemble, _ = ensemble_and_singles()
    x = inputs()
    for i, state in enumerate(ensemble.state_dicts()):
        single = MLP(SIZES, seed=99).double()
        single.load_state_dict(state)
        torch.testing.assert_close(single(x[i]), ensemble(x)[i], rtol=0, atol=1e-12)
        for name, tensor in single.state_dict().items():  # to save one is to save no other
            assert state[name].untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
            assert state[name].stride() == tensor.stride()


def test_safetensors_takes_the_state_of_each_network(tmp_path: Path) -> None:
    ensemble, _ = ensemble_and_singles()
    for state in ensemble.state_dicts():
        save_file(state, tmp_path / "one.safetensors")
        assert all(torch.equal(state[name], tensor) for name, tensor in load_file(tmp_path / "one.safetensors").items())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rule", [DFA, Backprop])
def test_a_step_of_an_ensemble_copies_nothing_into_another_order(rule: type[DirectRule], bias: bool) -> None:
    ensemble, _ = ensemble_and_singles(bias=bias)
    outputs: list[Tensor] = []
    for module in ensemble:
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    rule(ensemble)(inputs()).sum().backward()
    assert len(outputs) >= len(ensemble)
    assert all(output.is_contiguous() for output in outputs)
    for parameter in ensemble.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()


def test_weights_and_biases_fill_one_over_the_root_of_fan_in() -> None:
    """The largest of n uniform numbers lies below 1 − 10/n of the bound with probability e⁻¹⁰."""
    for net in (MLP([400, 300, 200]), EnsembleMLP(1, [400, 300, 200])):
        fan_in = {"0": 400, "2": 300}
        for name, parameter in net.named_parameters():
            bound = 1 / math.sqrt(fan_in[name[0]])
            largest = float(parameter.detach().abs().max())
            assert (1 - 10 / parameter.numel()) * bound <= largest <= bound
            standard_error = bound / math.sqrt(3 * parameter.numel())
            assert abs(float(parameter.detach().mean())) < 5 * standard_error


@pytest.mark.parametrize("bias", [True, False])
def test_there_is_an_activation_after_every_layer_but_the_last(bias: bool) -> None:
    assert [type(module) for module in MLP(SIZES, bias=bias)] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert sum(name.endswith("bias") for name, _ in MLP(SIZES, bias=bias).named_parameters()) == 3 * bias
    assert [name for name, _ in EnsembleMLP(2, SIZES, bias=bias).named_parameters()] == [
        name for name, _ in MLP(SIZES, bias=bias).named_parameters()
    ]


def test_two_sizes_make_a_linear_map() -> None:
    assert [type(module) for module in MLP([4, 2])] == [nn.Linear]


@pytest.mark.parametrize(
    ("sizes", "activation", "message"),
    [
        ([], "tanh", r"sizes=\[\] must name the widths"),
        ([4], "tanh", r"sizes=\[4\] must name the widths of input, hidden layers and output"),
        ([4, 0, 2], "tanh", r"sizes\[1\] must be a whole number of at least 1, got 0"),
        ([4, 2], "gelu", "activation='gelu' is unknown; expected one of tanh, relu, linear"),
    ],
)
def test_bad_shapes_say_what_was_expected(sizes: list[int], activation: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        MLP(sizes, activation)
    with pytest.raises(ArgumentError, match=message):
        EnsembleMLP(2, sizes, activation)


def test_bad_ensembles_say_what_was_expected() -> None:
    with pytest.raises(ArgumentError, match="n_networks must be a whole number of at least 1, got 0"):
        EnsembleMLP(0, SIZES)
    with pytest.raises(ArgumentError, match="got 2 seeds for 3 networks; give one each"):
        EnsembleMLP(3, SIZES, seeds=[1, 2])
    with pytest.raises(ArgumentError, match="got 0 seeds for 3 networks"):
        EnsembleMLP(3, SIZES, seeds=[])


def test_its_printed_form_names_the_sizes() -> None:
    assert "3 x 7 -> 6, bias=True" in str(EnsembleMLP(3, SIZES))
