"""Small Transformers that predict the characters of a text, trained by a rule or as a control and measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

from feedalign.alignment import gradient_alignment
from feedalign.errors import DataError
from feedalign.feedback import Gaussian, Shared
from feedalign.lab.data import TextData, every_window, load_text, ngram, windows
from feedalign.lab.runs import Desk, Job
from feedalign.lab.training import Measurements, one_thread, steps_per_epoch, train
from feedalign.networks import Transformer
from feedalign.rules import RULES, DirectRule, Wrapped
from feedalign.streams import derived_seed, torch_generator

EMBEDDING = "block1.embedding"
BLOCKS = 200  # that the text is cut into: so many that its topics are in each of its parts
Norm = Literal["post", "pre"]
Kind = Literal["own", "shared", ""]


@dataclass(frozen=True)
class Arm:
    """What is trained, and how.

    Attributes:
        rule: name of a rule, as in `feedalign.rules.RULES`.
        lr: learning rate of AdamW after the warm-up.
        norm: "pre" or "post".
        feedback: "own": a matrix of its own for each block; "shared": one for all; "": the rule does not use feedback.
        blocks: number of blocks; unless given, that of the config. With 0, embedding and readout alone, which can
            learn no more than which character follows which.
        embedding: whether the embedding learns.
    """

    rule: str
    lr: float
    norm: Norm = "post"
    feedback: Kind = ""
    blocks: int | None = None
    embedding: bool = True

    @property
    def name(self) -> str:
        """The arm in words."""
        blocks = {None: "", 0: "no blocks", 1: "one block"}.get(self.blocks, f"{self.blocks} blocks")
        fixed = "" if self.embedding else "fixed embedding"
        norm = "" if self.blocks == 0 else f"{self.norm}-norm"
        return ", ".join(part for part in (self.rule, self.feedback, blocks, fixed, norm) if part)

    @property
    def draws(self) -> bool:
        """Whether the feedback matters to what is learned."""
        return bool(self.feedback) or self.rule == "fa"


@dataclass(frozen=True, kw_only=True)
class CharacterConfig:
    """What all trainings of an experiment on characters have in common.

    Attributes:
        text: digest of the text, which is another one in each version of Python.
        width: of the residual stream.
        blocks: number of blocks.
        context: characters that a network sees.
        windows: number of windows of the text that are trained on, drawn at random.
        passes: how often they are passed through.
        batch_size: windows in a step.
        warm_up: steps in which the learning rate grows from zero. After that it falls to zero, in a straight line.
        beta2: β₂ of AdamW.
        feedback_lr: learning rate of learned feedback.
        feedback_decay: weight decay of learned feedback.
        measurements: number of measured steps, in even steps.
        held_out: windows of each of the two held-out parts on which bits are measured.
        probe: windows on which alignment is measured.
        first_seed: seed from which everything that is random gets its own.
    """

    text: str
    width: int
    blocks: int
    context: int
    windows: int
    passes: int
    batch_size: int
    warm_up: int
    beta2: float = 0.99
    feedback_lr: float = 0.1
    feedback_decay: float = 1e-2
    measurements: int
    held_out: int
    probe: int = 16
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class CharacterTraining(Job, CharacterConfig):
    """One training.

    Attributes:
        arm: what is trained, and how.
        seed: number of the initial weights, the windows and their order.
        draw: number of the feedback; each seed has draws of its own.
    """

    kind: ClassVar[str] = "transformer-training"
    arm: Arm
    seed: int
    draw: int

    @one_thread()
    def compute(self, desk: Desk) -> xr.Dataset:
        """Train, and measure in even steps from the initial state to the end."""
        text, *parts = held_out_twice(self.text, self.first_seed)
        seed = derived_seed(self.first_seed, "network", self.seed)
        x, y = windows(text.train, self.context, self.windows, torch_generator(seed, "data"))
        steps = self.passes * steps_per_epoch(self.windows, self.batch_size)
        times = np.linspace(0, steps, self.measurements).round().astype(int)
        net = self._net(len(text.alphabet), x[:1], seed)
        optimizer = self.optimizer_of(net)
        gathered = Measurements("step")
        measure = partial(self._measured, net, [thinned(part, self.context, self.held_out) for part in parts])

        def before_step(step: int) -> None:
            for group in optimizer.param_groups:
                group["lr"] = self.arm.lr * self._share_of_lr(step, steps)
            if step in times:
                gathered.add(measure())
                desk.progress(step, steps)

        train(
            net,
            x,
            y,
            loss_fn=loss_of,
            optimizer=optimizer,
            epochs=self.passes,
            batch_size=self.batch_size,
            order=torch_generator(seed, "order"),
            before_step=before_step,
            checkpoints=desk.checkpoints,
            measurements=gathered,
        )
        return gathered.dataset().assign_coords(step=("step", times, {"units": "steps"}))

    def optimizer_of(self, net: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a network's parameters; its learning rate is set before each step."""
        return torch.optim.AdamW(net.parameters(), self.arm.lr, betas=(0.9, self.beta2), fused=True)

    def options_of(self, rule: Any, model: Transformer) -> dict[str, Any]:
        """Return what the arm's rule is given besides the model, its seed and an example of its input."""
        options: dict[str, Any] = {}
        if issubclass(rule, DirectRule):
            # The control freezes all blocks but the first; the embedding is a block if it has a point of its own.
            points = [*([EMBEDDING] if self.arm.rule == "frozen" else []), *model.block_names]
            options |= {"points": points, "feedback": Shared() if self.arm.feedback == "shared" else Gaussian()}
        if rule.learns_feedback:
            options |= {"lr": self.feedback_lr, "weight_decay": self.feedback_decay}
        return options

    def _share_of_lr(self, step: int, steps: int) -> float:
        return min((step + 1) / self.warm_up, (steps - step) / max(steps - self.warm_up, 1))

    def _net(self, letters: int, example: Tensor, seed: int) -> nn.Module:
        blocks = self.blocks if self.arm.blocks is None else self.arm.blocks
        model = Transformer(
            letters, width=self.width, blocks=max(blocks, 1), context=self.context, norm=self.arm.norm, seed=seed
        )
        if not self.arm.embedding:
            model.get_submodule(EMBEDDING).requires_grad_(False)
        if not blocks:
            return nn.Sequential(model.get_submodule(f"{EMBEDDING}.tokens"), model.get_submodule("readout"))
        rule: Any = RULES[self.arm.rule]
        feedback = derived_seed(self.first_seed, "feedback", self.seed, self.draw)
        net: nn.Module = rule(model, seed=feedback, example_input=example, **self.options_of(rule, model))
        return net

    def _measured(self, net: nn.Module, parts: list[tuple[Tensor, Tensor]]) -> xr.Dataset:
        """Return bits per character on both held-out parts, and gradient alignment where a rule sends an error."""
        with torch.no_grad():
            chosen, judged = (float(loss_of(net(x), y)) / math.log(2) for x, y in parts)
        probe = parts[1][0][: self.probe], parts[1][1][: self.probe]
        aligned, embedding = [math.nan] * self.blocks, math.nan
        if self.arm.feedback and isinstance(net, DirectRule):
            aligned = list(gradient_alignment(net, loss_of, *probe, at="point").layers.values())
            if not net.learns_feedback:  # a backward pass would teach it
                embedding = embedding_alignment(net, *probe)
        return xr.Dataset(
            {
                "choosing_bits": chosen,
                "bits": judged,
                "gradient_alignment": ("block", aligned),
                "embedding_alignment": embedding,
            },
            coords={"block": np.arange(1, self.blocks + 1)},
        )


def loss_of(output: Tensor, characters: Tensor) -> Tensor:
    """Return the mean of −ln p over the characters."""
    return functional.cross_entropy(output.flatten(0, -2), characters.flatten())


def embedding_alignment(net: Wrapped, x: Tensor, y: Tensor) -> float:
    """Return the cosine between a rule's and the true gradient of the characters' vectors; NaN if they do not learn."""
    vectors = net.model.get_parameter(f"{EMBEDDING}.tokens.weight")
    if not vectors.requires_grad:
        return math.nan
    (sent,) = torch.autograd.grad(loss_of(net(x), y), vectors)
    with net.backprop():
        (true,) = torch.autograd.grad(loss_of(net(x), y), vectors)
    return float(functional.cosine_similarity(sent.flatten(), true.flatten(), dim=0))


def held_out_twice(digest: str, first_seed: int) -> tuple[TextData, Tensor, Tensor]:
    """Return the text, and its held-out blocks in two parts: one to choose by, and one to judge by.

    Raises:
        DataError: this version of Python comes with another text than the one of the digest.
    """
    text = load_text(seed=derived_seed(first_seed, "split"), validation=0.2, blocks=BLOCKS)
    if text.digest != digest:
        raise DataError(
            f"the documentation of this version of Python has the digest {text.digest}, expected {digest}; run the job "
            "with the version of Python that made its config"
        )
    return text, text.validation[::2], text.validation[1::2]


def ngram_bits(config: CharacterConfig) -> xr.DataArray:
    """Return what counts of single characters, pairs and triples predict of the part to judge by, in bits, by order."""
    text, _, judged = held_out_twice(config.text, config.first_seed)
    bits = [ngram(replace(text, validation=judged), order).validation_bits for order in (1, 2, 3)]
    return xr.DataArray(bits, dims="order", coords={"order": [1, 2, 3]})


def thinned(part: Tensor, context: int, number: int) -> tuple[Tensor, Tensor]:
    """Return `number` windows of a part of the text, evenly spread."""
    x, y = every_window(part, context)
    kept = torch.linspace(0, len(x) - 1, min(number, len(x))).round().long()
    return x[kept], y[kept]
