"""The rule's and the true gradient of the parameters of every block."""

from __future__ import annotations

import torch
from torch import Tensor

from feedalign.alignment.inner_products import Products, inner_products
from feedalign.alignment.true_pass import Batch, backward, true_pass
from feedalign.anatomy import State, activation_of, leaves_below
from feedalign.rules import DirectRule


def products_at_parameters(net: DirectRule, batch: Batch) -> Products:
    """Return the inner products of true and sent gradient of the blocks that end at the points: [3, points + 1].

    The rule's side is the rule's own gradient, from a second pass with the same random numbers: all that an optimizer
    would see, also of a weight that several blocks share.
    """
    owned = {name: _parameters(net, name) for name in net.points}
    targets = list(dict.fromkeys(one for own in owned.values() for one in own))
    before = State(net.model)
    ends: list[tuple[str, Tensor]] = []
    _, loss = true_pass(net, batch, lambda name, output: ends.append((name, activation_of(name, output))))
    # What runs between two points on parallel paths need not lead to the second one.
    for name, own in owned.items():
        leading = leaves_below([end for point, end in ends if point == name], own, [end for _, end in ends])
        owned[name] = [one for one in own if id(one) in leading]
    true = dict(zip(targets, backward([(loss, None)], targets), strict=True))

    before.restore()
    with torch.enable_grad():
        loss = batch.loss_fn(net.run_without_learning(batch.args, batch.kwargs), batch.y)
        sent = dict(zip(targets, backward([(loss, None)], targets), strict=True))

    pairs = ((point, _dense(true[one]), _dense(sent[one])) for point, own in owned.items() for one in own)
    return inner_products(pairs, net.points, ())


def _parameters(net: DirectRule, point: str) -> list[Tensor]:
    """Return the trainable parameters of the blocks that end at a point."""
    modules = [net.model.get_submodule(name) for block in net.blocks if block.point == point for name in block.modules]
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    return list(dict.fromkeys(parameter for parameter in parameters if parameter.requires_grad))


def _dense(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.to_dense()
