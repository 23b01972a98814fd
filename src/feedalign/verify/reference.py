"""The rules written down slowly: the model cut into blocks, plain autograd within each, the formula in between.

Nothing here uses the rules' own graphs, hooks or signals; `check_rule` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import ErrorTap, PassMasks, mapped, plain_copy, tapped
from feedalign.errors import ArgumentError
from feedalign.rules import (
    DFA,
    DRTP,
    FA,
    Backprop,
    ConditionedDFA,
    DirectKolenPollack,
    Frozen,
    KolenPollack,
    ReadoutOnly,
    SequentialRule,
    SignSymmetry,
    Wrapped,
)
from feedalign.verify.nearest import mean_over_copies, nearest, of_size

Gradients = dict[str, Tensor]
Message = Callable[[Tensor], Tensor]


def gradients(
    net: Wrapped,
    matrices: Mapping[str, Tensor],
    run: Callable[[nn.Module], Any],
    loss_of: Callable[[Any], Tensor],
    message: Message | None,
    masks: PassMasks | None = None,
) -> tuple[Gradients, dict[str, Tensor]]:
    """Return every parameter's gradient and every learned matrix after its update; `net` is used up.

    ArgumentError if there is no reference for this rule, OutputError if no error can be taken of the model's output.
    """
    task = Task(net.unwrap(), run, loss_of, net.error_tap, masks)
    kind = net.rule
    if message is None:
        message = _message_of(net)
    if message is not None or kind is ReadoutOnly:
        return _direct(task, net, matrices, message)
    if isinstance(net, SequentialRule) and kind in (FA, KolenPollack, SignSymmetry):
        return _sequential(task, net, matrices)
    if isinstance(net, Backprop):  # and Frozen, which is one
        task.add(task.loss())
        known_as = task.names()
        for block in net.blocks:
            if isinstance(net, Frozen) and block.point in net.frozen:
                for module in block.modules:
                    for parameter in task.model.get_submodule(module).parameters(recurse=False):
                        task.found.pop(known_as[id(parameter)], None)
        return task.found, {}
    raise ArgumentError(
        f"there is no reference for {kind.__name__}; for a DirectRule give message=, what it sends for the error"
    )


def _message_of(net: Wrapped) -> Message | None:
    if (net.rule is DFA and net.error == "true") or net.rule is DirectKolenPollack:
        return lambda e: e
    if net.rule is ConditionedDFA:
        P = net.conditioner.clone()
        return lambda e: torch.einsum("dc,...c->...d", P, e.to(P.dtype))
    if net.rule in (DFA, DRTP):
        averages = net.reduction == "mean"

        def written_down(e: Tensor) -> Tensor:
            entries = max(1, sum(bool(row.any()) for row in e.flatten(0, -2))) if averages else 1
            positive, negative = (e > 0).to(e.dtype), (e < 0).to(e.dtype)
            return (-negative if net.rule is DRTP else positive - negative) / entries

        return written_down
    return None


@dataclass
class Task:
    """The model, its loss, and the gradients found so far."""

    model: nn.Module
    run: Callable[[nn.Module], Any]
    loss_of: Callable[[Any], Tensor]
    tap: ErrorTap
    masks: PassMasks | None = None
    found: Gradients = field(default_factory=dict)
    outputs: tuple[Tensor, ...] = ()

    def names(self) -> dict[int, str]:
        """Return the first name of each parameter, by id: a tied weight has several."""
        return {id(parameter): name for name, parameter in self.model.named_parameters()}

    def loss(self) -> Tensor:
        """Return the loss, and keep the Tensors at which the error is taken."""

        def equal(tensor: Tensor) -> Tensor:
            # What the model itself makes of this entry, for another one, is no part of the error: hence not the entry,
            # but an equal one in its place.
            other = tensor.view_as(tensor)
            return other if other.requires_grad else other.requires_grad_()  # above a frozen readout

        output, self.outputs = tapped(self.model, self.tap, lambda: self.run(self.model), equal)
        return self.loss_of(output)

    def real(self, shape: torch.Size, batch: torch.Size, point: str = "", *, lacks: bool = False) -> Tensor:
        """Return 1 for real entries of a point's activation, or of the error, and 0 for padding, in its shape."""
        real = torch.ones(shape)
        own = self.masks is not None and point in self.masks.of_points
        known = None if self.masks is None else self.masks.of_points[point] if own else self.masks.of_error
        if known is not None:
            while known.ndim > len(batch) and known.shape[-1] == 1:
                known = known[..., 0]
            # Of tokens, while this has none, or has others.
            if len(shape) <= known.ndim > len(batch) or (lacks and not own and known.ndim > len(batch)):
                known = known.flatten(len(batch)).any(-1)
            for place in (~known).nonzero().tolist():
                # An axis of length 1 in the mask stands for a whole axis of the activation.
                real[tuple(i if size > 1 else slice(None) for i, size in zip(place, known.shape, strict=True))] = 0
        return real.double()

    def add(self, end: Tensor, sent: Tensor | None = None, also: tuple[Tensor, ...] = ()) -> tuple[Tensor | None, ...]:
        """Add to the parameters what `sent` at the end of a block makes of it, and return what `also` gets."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        wanted = [*(p for _, p in named), *also]
        if not end.requires_grad or not wanted:
            return tuple(None for _ in also)
        got = torch.autograd.grad(end, wanted, sent, retain_graph=True, allow_unused=True)
        for (name, _), gradient in zip(named, got[: len(named)], strict=True):
            if gradient is not None:
                self.found[name] = self.found.get(name, 0) + gradient.to_dense()
        return got[len(named) :]


def _direct(
    task: Task, net: Wrapped, matrices: Mapping[str, Tensor], message: Message | None
) -> tuple[Gradients, dict[str, Tensor]]:
    """δ = F m(e) at the end of every block, and e at the output.

    A point that lacks some of the output's batch axes is sent the sum over these axes.
    """
    forms = net.feedback.forms
    ends: list[tuple[str, Tensor]] = []

    def cut(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, h: Any) -> Any:
            ends.append((name, h if isinstance(h, Tensor) else h[0]))
            # In the usual memory format: torch's group norm ends the process where an input that needs no gradient is
            # stored channels last.
            plain = torch.contiguous_format
            return mapped(h, lambda tensor: tensor.detach().clone(memory_format=plain), objects=True)

        return hook

    for name in forms:
        task.model.get_submodule(name).register_forward_hook(cut(name))
    loss = task.loss()
    taken = tuple(ends)  # a checkpoint runs its part again in the backward pass, and the hooks with it
    task.add(loss)
    if message is None:
        return task.found, {}
    errors = torch.autograd.grad(loss, task.outputs, retain_graph=True, allow_unused=True, materialize_grads=True)
    error = torch.cat([one.reshape(*task.tap.batch_shape(one), -1) for one in errors], -1)
    error = error * task.real(error.shape, error.shape[:-1])
    learned = {name: matrix.clone() for name, matrix in matrices.items()}
    for name, h in taken:
        lacks = forms[name].summed
        e, m = (each.flatten(-1 - lacks, -2).sum(-2) if lacks else each for each in (error, message(error)))
        batch = e.shape[:-1]
        e, m = e.flatten(0, -2), m.flatten(0, -2)
        features = h.numel() // max(1, len(m))
        F = of_size(forms[name], matrices[name], features)
        _check_length(name, features, len(F))
        real = task.real(h.shape, batch, name, lacks=bool(lacks))
        # What is sent has the precision of the feedback, whatever the precision of the output and of the activation.
        sent = torch.einsum("bc,hc->bh", m.to(F.dtype), F)
        task.add(h, (sent.reshape(h.shape) * real).to(h.dtype))
        if isinstance(net, DirectKolenPollack):
            activity = h.detach().reshape(len(e), -1).to(matrices[name].dtype)
            counted = real.reshape(len(e), -1).to(activity.dtype)
            activity, counted = mean_over_copies(forms[name], activity, counted)
            if net.centred:
                present = counted * torch.tensor([[float(row.any())] for row in e])
                activity = activity - (present * activity).sum(0) / present.sum(0).clamp(min=1)
            F = learned[name]
            activity = of_size(forms[name], (activity * counted).T, len(F)).T
            decayed = F - net.lr * net.weight_decay * F
            learned[name] = decayed - net.lr * torch.einsum("bh,bc->hc", activity, e.to(F.dtype))
    return task.found, nearest(net, learned) if isinstance(net, DirectKolenPollack) else {}


def _check_length(name: str, features: int, drawn: int) -> None:
    if features != drawn:
        raise ArgumentError(
            f"point {name!r} has {features} features for each sample of this batch, and its feedback was drawn for "
            f"{drawn}; check the rule with a batch of that length, or wrap the model with example_input= of this length"
        )


def _sequential(task: Task, net: SequentialRule, matrices: Mapping[str, Tensor]) -> tuple[Gradients, dict[str, Tensor]]:
    """Layer by layer from the top: the layer's own parameters from δ, then δ through B to the block below."""
    runs: list[tuple[str, nn.Module, Tensor, Tensor, Tensor]] = []
    inputs: dict[str, Tensor] = {}

    def cut_below(name: str) -> Any:
        def hook(_layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            inputs[name] = given[0]
            return given[0].detach(), *given[1:]

        return hook

    def cut_above(name: str) -> Any:
        def hook(layer: nn.Module, _given: tuple[Tensor, ...], y: Tensor) -> Tensor:
            above = y.detach().requires_grad_()
            runs.append((name, layer, inputs.pop(name), y, above))
            return above.clone()

        return hook

    for name in matrices:
        task.model.get_submodule(name).register_forward_pre_hook(cut_below(name))
        task.model.get_submodule(name).register_forward_hook(cut_above(name))
    learned = {name: matrix.clone() for name, matrix in matrices.items()}
    loss = task.loss()
    ran = tuple(runs)  # a checkpoint runs its part again in the backward pass, and the hooks with it
    tops = [above for *_, above in ran]
    first_names = task.names()
    deltas: dict[int, Tensor] = {}

    def down(end: Tensor, sent: Tensor | None, below: int) -> None:
        for i, gradient in enumerate(task.add(end, sent, tuple(tops[:below]))):
            if gradient is not None:
                deltas[i] = deltas.get(i, 0) + gradient

    down(loss, None, len(ran))
    for i in reversed(range(len(ran))):
        if i not in deltas:  # the loss does not use the layer, so an optimizer would not move its weight either
            continue
        name, layer, x, y, _ = ran[i]
        own = {n: p for n, p in layer.named_parameters() if p.requires_grad}
        # Nothing below the layer is in this graph, where a tied weight may have another gradient.
        got = torch.autograd.grad(y, list(own.values()), deltas[i], retain_graph=True) if own else ()
        for parameter, gradient in zip(own.values(), got, strict=True):
            known_as = first_names[id(parameter)]
            task.found[known_as] = task.found.get(known_as, 0) + gradient
        of_weight, sent = _through(net, name, layer, x, deltas[i], matrices[name])
        down(x, sent, i)
        known = net.known[name]
        if isinstance(net, KolenPollack) and known.weight_of(layer).requires_grad:  # B stays where its weight is frozen
            for mask in (b for n, b in layer.named_buffers() if n == f"{known.weight}_mask"):
                of_weight = of_weight * mask  # torch.nn.utils.prune: what is cut off does not move
            old = learned[name]
            shape = old.shape if known.transposed else old.T.shape
            as_matrix = of_weight.reshape(-1, *shape).sum(0)
            step = as_matrix if known.transposed else as_matrix.T
            learned[name] = old - net.lr * net.weight_decay * old - net.lr * step
    return task.found, learned if isinstance(net, KolenPollack) else {}


def _through(
    net: SequentialRule, name: str, layer: nn.Module, x: Tensor, delta: Tensor, B: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of one layer's weight, and what goes down through B in the place of the weight."""
    known, other = net.known[name], plain_copy(layer)
    W = other.get_parameter(known.weight).requires_grad_()
    one = B if known.transposed else B.T
    # A layer that is many networks' at once has B once for each.
    instead = one.reshape(W.shape) if B.numel() == W.numel() else torch.stack([one] * len(W))
    if isinstance(net, SignSymmetry):
        instead = torch.sign(W.detach()) * instead
    start = x.detach().requires_grad_()
    (of_weight,) = torch.autograd.grad(other.forward(start), W, delta)
    with torch.no_grad():
        W.copy_(instead)
    (sent,) = torch.autograd.grad(other.forward(start), start, delta)
    return of_weight, sent
