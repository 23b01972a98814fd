"""The loop: every sample once an epoch, orders of their own, and callbacks that are told the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from feedalign.lab.training import steps_per_epoch, train
from feedalign.networks import MLP, EnsembleMLP
from feedalign.rules import DFA, Backprop, DirectRule

SAMPLES, BATCH, EPOCHS = 23, 5, 4  # 5 does not divide 23
SIZES = (6, 8, 7, 3)


class Witness(nn.Module):
    """Remembers every batch it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach()[..., 0].clone())
        return self.scale * x


def orders(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def watch(order: torch.Generator | Sequence[torch.Generator], epochs: int = EPOCHS) -> list[Tensor]:
    """The samples' numbers, batch by batch; fails if an input ever meets another's label."""
    net = Witness()
    inputs = torch.arange(SAMPLES, dtype=torch.float32)[:, None]

    def loss_fn(output: Tensor, labels: Tensor) -> Tensor:
        assert torch.equal(net.seen[-1].long(), labels)
        return 0 * output.sum()

    train(
        net,
        inputs,
        torch.arange(SAMPLES),
        loss_fn=loss_fn,
        optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
        epochs=epochs,
        batch_size=BATCH,
        order=order,
    )
    return net.seen


def test_every_sample_is_seen_once_an_epoch_in_full_batches_and_a_rest() -> None:
    per_epoch = steps_per_epoch(SAMPLES, BATCH)
    seen = watch(orders(0)[0])
    assert len(seen) == EPOCHS * per_epoch
    epochs = [seen[i : i + per_epoch] for i in range(0, len(seen), per_epoch)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [5, 5, 5, 5, 3]
        assert sorted(torch.cat(epoch).tolist()) == list(range(SAMPLES))
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1])), "every epoch has an order of its own"


def test_each_network_of_an_ensemble_has_the_order_of_its_generator() -> None:
    together = watch(orders(4, 0, 9))
    for i, seed in enumerate((4, 0, 9)):
        alone = watch(orders(seed)[0])
        assert [batch[i].tolist() for batch in together] == [batch.tolist() for batch in alone]


@pytest.mark.parametrize("rule", [Backprop, DFA])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_network_i_of_an_ensemble_trains_as_it_would_alone(rule: type[DirectRule], momentum: float) -> None:
    data = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, SIZES[0], generator=data, dtype=torch.float64)
    labels = torch.randint(SIZES[-1], (SAMPLES,), generator=data)

    def trained(net: nn.Module, order: torch.Generator | list[torch.Generator]) -> None:
        wrapped = rule(net.double(), seed=3)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.02, momentum=momentum)
        train(
            wrapped, inputs, labels, loss_fn=summed, optimizer=optimizer, epochs=EPOCHS, batch_size=BATCH, order=order
        )  # fmt: skip

    seeds = (2, 0, 5)
    ensemble = EnsembleMLP(3, SIZES, seeds=seeds)
    trained(ensemble, orders(*(100 + seed for seed in seeds)))
    for seed, state in zip(seeds, ensemble.state_dicts(), strict=True):
        single = MLP(SIZES, seed=seed)
        trained(single, orders(100 + seed)[0])
        for name, parameter in single.state_dict().items():
            torch.testing.assert_close(state[name], parameter, rtol=0, atol=1e-10)
        start = MLP(SIZES, seed=seed).double().state_dict()
        assert all(float((start[name] - parameter).abs().max()) > 1e-3 for name, parameter in state.items())


def summed(output: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, -2), labels.flatten(), reduction="sum")


def small_training(seed: int = 0, before_step: Callable[[int], None] | None = None, epochs: int = 2) -> Tensor:
    """All weights after a small training."""
    data = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, SIZES[0], generator=data)
    labels = torch.randint(SIZES[-1], (SAMPLES,), generator=data)
    net = DFA(MLP(SIZES))
    train(
        net,
        inputs,
        labels,
        loss_fn=functional.cross_entropy,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        epochs=epochs,
        batch_size=BATCH,
        order=orders(seed)[0],
        before_step=before_step,
    )
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def test_the_same_seeds_give_the_same_bits_and_others_do_not() -> None:
    assert torch.equal(small_training(0), small_training(0))
    assert not torch.equal(small_training(0), small_training(1))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    small_training()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_callback_is_told_every_step_and_the_end() -> None:
    steps: list[int] = []
    small_training(before_step=steps.append, epochs=3)
    assert steps == list(range(3 * steps_per_epoch(SAMPLES, BATCH) + 1))


def test_a_callback_sees_the_weights_before_the_step_and_after_the_last() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.zero_()
    seen: list[float] = []
    train(
        net,
        torch.ones(4, 1),
        torch.zeros(4),
        loss_fn=lambda output, _: output.mean(),  # gradient one: each step takes the weight down by lr
        optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
        epochs=1,
        batch_size=2,
        order=orders(0)[0],
        before_step=lambda _: seen.append(float(net.weight.detach())),
    )
    assert seen == [0.0, -1.0, -2.0]


def test_no_epochs_train_nothing_and_say_so_once() -> None:
    steps: list[int] = []
    start = nn.utils.parameters_to_vector(MLP(SIZES).parameters()).detach()
    assert torch.equal(small_training(before_step=steps.append, epochs=0), start)
    assert steps == [0]


@pytest.mark.parametrize("samples", [1, 4, 5, 6, 23])
def test_steps_per_epoch_counts_the_rest_as_a_step(samples: int) -> None:
    assert steps_per_epoch(samples, BATCH) == len(torch.arange(samples).split(BATCH))
