"""The situations of the table in docs/how-to/compatibility.md: each trains a net, or
measures, and holds that it is right.
"""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import torch
from tests.cases.holding import Hold, Rule, as_usual, cross_entropy, right, wrapped
from tests.cases.outputs import Structured
from tests.cases.small import EXACT, assert_same, batch, gradients, network
from tests.cases.unusual import Checkpointed, Dropped, LossInside, Packed, Sparse, Spectrum, Tied, Twice
from torch import Tensor
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel


def autocast(rule: Rule, _hold: Hold = right) -> None:
    def train(net: Any, x: Tensor, y: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            output = net.float()(x.float())
        cross_entropy(output.float(), y).backward()
        net.double()

    as_usual(rule, train, rtol=0.1, atol=0.01)


def compiled(rule: Rule, _hold: Hold = right) -> None:
    def train(net: Any, x: Tensor, y: Tensor) -> Any:
        fast: Any = torch.compile(net, backend="aot_eager")
        return gradients(fast, x, y)

    as_usual(rule, train)


def checkpointing(rule: Rule, hold: Hold = right) -> None:
    hold(wrapped(rule, Checkpointed(False), ("body.1", "body")), *batch())


def reentrant_checkpointing(rule: Rule, _hold: Hold = right) -> None:
    x, y = batch()
    cross_entropy(wrapped(rule, Checkpointed(True), ("body.1", "body"), x)(x), y).backward()


def recompute(rule: Rule, hold: Hold = right) -> None:
    hold(rule(network(), recompute=True), *batch())


TOKENS = torch.arange(12).reshape(4, 3) % 7


def of_tokens(output: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(output.flatten(0, 1), y.flatten())


def tied(rule: Rule, hold: Hold = right) -> None:
    hold(wrapped(rule, Tied(), ("act",), TOKENS), TOKENS, TOKENS.flip(1), of_tokens)


def twice(rule: Rule, hold: Hold = right) -> None:
    hold(wrapped(rule, Twice(), ("act",), batch()[0].float()), *batch())


def pruned(rule: Rule, hold: Hold = right) -> None:
    model = network()
    prune.random_unstructured(model[2], "weight", amount=0.5)
    hold(rule(model), *batch())


def parametrized(rule: Rule, hold: Hold = right) -> None:
    model = network()
    parametrizations.weight_norm(model[2])
    hold(rule(model), *batch())


def sparse(rule: Rule, hold: Hold = right) -> None:
    hold(wrapped(rule, Sparse(), ("act",), TOKENS), TOKENS, TOKENS.flip(1), of_tokens)


def complex_inside(rule: Rule, hold: Hold = right) -> None:
    x, y = batch()
    hold(wrapped(rule, Spectrum().double(), ("act",), x), x, y)


def complex_point(rule: Rule, _hold: Hold = right) -> None:
    rule(Spectrum().double(), ("complex",), example_input=batch()[0])


def packed(rule: Rule, hold: Hold = right) -> None:
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    hold(wrapped(rule, Packed(), ("act",), x), x, batch(4)[1])


def dictionary(rule: Rule, hold: Hold = right) -> None:
    model = Structured(lambda logits, h: {"logits": logits, "aux": h})
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    net = wrapped(rule, model, ("gate",), x, output="logits")
    hold(net, x, batch(5)[1], lambda output, y: cross_entropy(output["logits"], y))


def loss_inside(rule: Rule, hold: Hold = right) -> None:
    x, y = batch()
    net = wrapped(rule, LossInside(), ("body.1", "body.3"), (x, y), output="logits")
    hold(net, (x, y), y, lambda output, _: output["loss"].clone())


def loss_inside_at_a_place(rule: Rule, hold: Hold = right) -> None:
    x, y = batch()
    net = wrapped(rule, LossInside(), ("body.1", "body.3"), (x, y), error_at="body.4")
    hold(net, (x, y), y, lambda output, _: output["loss"].clone())


def second_derivative(rule: Rule, _hold: Hold = right) -> None:
    x, y = batch()
    x.requires_grad_()
    (of_input,) = torch.autograd.grad(cross_entropy(rule(network())(x), y), x, create_graph=True)
    of_input.square().sum().backward()


def exported(rule: Rule, _hold: Hold = right) -> None:
    torch.export.export(rule(network()), (batch()[0],))


def empty(rule: Rule, hold: Hold = right) -> None:
    net = rule(network())
    before = {name: F.clone() for name, F in net.feedback_matrices.items()}
    cross_entropy(
        net(torch.zeros(0, 5, dtype=torch.float64)), torch.zeros(0, dtype=torch.long), reduction="sum"
    ).backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in net.parameters())
    if not rule.learns_feedback:  # learned feedback decays with every update, as the weights do
        assert_same(net.feedback_matrices, before)
    net.zero_grad()
    hold(net, *batch())


def not_finite(rule: Rule, hold: Hold = right) -> None:
    x, y = batch()
    net = rule(network())
    before = {name: F.clone() for name, F in net.feedback_matrices.items()}
    cross_entropy(net(torch.full_like(x, float("nan"))), y).backward()
    assert_same(net.feedback_matrices, before)
    net.zero_grad()
    hold(net, x, y)


def inference(rule: Rule, _hold: Hold = right) -> None:
    def train(net: Any, x: Tensor, y: Tensor) -> Any:
        with torch.inference_mode():
            net(x)
        return gradients(net, x, y)

    as_usual(rule, train)


def threads(rule: Rule, _hold: Hold = right) -> None:
    def train(net: Any, x: Tensor, y: Tensor) -> Any:
        other = rule(network(seed=4), seed=3)
        found: list[Any] = []
        work = [threading.Thread(target=lambda n=each: found.append((n, gradients(n, x, y)))) for each in (net, other)]
        for one in work:
            one.start()
        for one in work:
            one.join()
        return next(each for n, each in found if n is net)

    as_usual(rule, train)


def meta(rule: Rule, _hold: Hold = right) -> None:
    with torch.device("meta"):
        net = rule(network(), seed=1)
    x, y = batch()
    net.to_empty(device="cpu").load_state_dict(rule(network(), seed=1).state_dict())
    assert_same(gradients(net, x, y), gradients(rule(network(), seed=1), x, y), **EXACT)


def ema(rule: Rule, _hold: Hold = right) -> None:
    def train(net: Any, x: Tensor, y: Tensor) -> Any:
        average = AveragedModel(net)
        found = gradients(net, x, y)
        average.update_parameters(net)
        assert torch.isfinite(average(x)).all()
        return found

    as_usual(rule, train)


def functional_call(rule: Rule, _hold: Hold = right) -> None:
    def train(net: Any, x: Tensor, y: Tensor) -> Any:
        parameters = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
        loss = cross_entropy(torch.func.functional_call(net, parameters, (x,)), y)
        found = torch.autograd.grad(loss, list(parameters.values()))
        return {name.removeprefix("model."): g for name, g in zip(parameters, found, strict=True)}

    as_usual(rule, train)


def frozen_part(rule: Rule, hold: Hold = right) -> None:
    model = network()
    model[2].requires_grad_(False)
    hold(rule(model), *batch())


def layer_dropout(rule: Rule, hold: Hold = right) -> None:
    hold(wrapped(rule, Dropped(), ("first.1", "act"), batch()[0]), *batch())


def padding(rule: Rule, hold: Hold = right) -> None:
    y = TOKENS.flip(1).clone()
    y[:, -1] = -100
    hold(wrapped(rule, Sparse(), ("act",), TOKENS), TOKENS, y, of_tokens)


def keywords(rule: Rule, hold: Hold = right) -> None:
    x, y = batch()
    hold(rule(network()), {"input": x}, y)


def pickled(rule: Rule, _hold: Hold = right) -> None:
    pickle.dumps(rule(network()))


def deep_copied(rule: Rule, _hold: Hold = right) -> None:
    as_usual(rule, lambda net, x, y: gradients(copy.deepcopy(net), x, y))


# By the words of the table's first column. One whose second argument is called `_hold` says nothing of measures.
SITUATIONS: dict[str, Callable[..., None]] = {
    "bfloat16 autocast": autocast,
    "`torch.compile(net)`": compiled,
    "`checkpoint(use_reentrant=False)` around points": checkpointing,
    "`checkpoint(use_reentrant=True)` around points": reentrant_checkpointing,
    "`recompute=True`": recompute,
    "Tied weights": tied,
    "A module that runs several times": twice,
    "Layers that are dropped at random": layer_dropout,
    "Pruned weights": pruned,
    "Parametrized weights": parametrized,
    "Frozen layers": frozen_part,
    "Sparse gradients": sparse,
    "Complex numbers within a block": complex_inside,
    "A complex activation as a point": complex_point,
    "Packed sequences": packed,
    "Entries without an error (`ignore_index`)": padding,
    "Outputs in a dict": dictionary,
    "Inputs by keyword": keywords,
    "A loss that the model computes itself": loss_inside,
    "The same with `error_at=`": loss_inside_at_a_place,
    "A gradient of a gradient (`create_graph=True`)": second_derivative,
    "`torch.export.export(net)` in a learning pass": exported,
    "Empty batches": empty,
    "Batches that are not finite": not_finite,
    "A first pass in inference mode": inference,
    "Two threads with a net each": threads,
    "Meta device, `to_empty`, then a loaded state": meta,
    "EMA copies made before the first batch": ema,
    "`torch.func.functional_call`": functional_call,
    "`copy.deepcopy(net)`": deep_copied,
    "`pickle.dumps(net)`": pickled,
}
