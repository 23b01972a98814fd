"""Training steps of a wrapped model in other people's training loops, beside the same steps in a plain loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from compatibility.case import tokens
from compatibility.checking import RULES, SEQUENTIAL, TOLERANCE, Outcome
from compatibility.packages import version_of
from compatibility.text_models import SIZES, maker

Train = Callable[[nn.Module, dict[str, Tensor], Tensor], None]
LR = 0.1


class Way(NamedTuple):
    """A training loop, and what stands beside it.

    Attributes:
        package: the loop's.
        name: of the row.
        train: trains a wrapped model with the loop.
        plain: does the same in a plain loop.
        wrapped: returns a model in the rule of a name.
    """

    package: str
    name: str
    train: Train
    plain: Train
    wrapped: Callable[[str], Any]


def outcomes() -> Iterator[tuple[str, str, dict[str, Outcome]]]:
    """Yield package, name, and the outcome of each rule."""
    for way in ways():
        missing = version_of(way.package) is None or version_of("transformers") is None
        yield way.package, way.name, {rule: Outcome("not tried") if missing else _outcome(rule, way) for rule in RULES}


def _outcome(rule: str, way: Way) -> Outcome:
    """Compare the weights and the feedback at the end with those of the plain loop."""
    start = time.monotonic()
    batch, labels = {"input_ids": tokens()}, torch.tensor([0, 1, 2])
    states = []
    try:
        for each in (way.plain, way.train):
            torch.manual_seed(0)
            net = way.wrapped(rule)
            each(net, batch, labels)
            states.append(net.state_dict())
    except fa.FeedalignError as error:
        return Outcome("refused", str(error), 0.0, time.monotonic() - start)
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}", 0.0, time.monotonic() - start)
    plain, found = states
    errors = {name: float((found[name] - one).abs().max()) for name, one in plain.items() if one.is_floating_point()}
    worst = max(errors.values())
    wrong = [name for name, error in errors.items() if not error < TOLERANCE]
    words = f"at the end other numbers than in a plain loop: {', '.join(wrong[:5])}" if wrong else ""
    return Outcome("failed" if wrong else "equal", words, worst, time.monotonic() - start)


def classifier(rule: str) -> Any:
    """Return a tiny BERT without dropout in a rule: the loops draw random numbers at other times."""
    sizes = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = maker("BertForSequenceClassification", sizes)()
    wrap = RULES[rule]
    if wrap in SEQUENTIAL:
        return wrap(model, output="logits")
    return wrap(model, ("bert.encoder.layer.0", "bert.encoder.layer.1"), output="logits")


def language_model(rule: str) -> Any:
    """Return a tiny GPT-2 in a rule, with tied weights and its own loss, and without dropout.

    It is in float64: the Trainer shuffles the rows, and Adam makes large what sums in another order differ by. Learned
    feedback has the learning rate of the weights; at the rule's own it would leave all bounds within these steps.
    """
    sizes = {**SIZES, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = maker("GPT2LMHeadModel", sizes)().double()
    wrap = RULES[rule]
    options: Any = {"lr": 5e-5} if rule.endswith("KolenPollack") else {}
    if wrap in SEQUENTIAL:
        return wrap(model, output="logits", **options)
    points = "transformer.h.0", "transformer.h.1"
    return wrap(model, points, error_at="lm_head", mask="attention_mask", **options)


def in_plain_loop(net: nn.Module, batch: dict[str, Tensor], labels: Tensor) -> None:
    """Train one step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    functional.cross_entropy(net(**batch).logits, labels).backward()
    optimizer.step()


def with_accelerate(net: nn.Module, batch: dict[str, Tensor], labels: Tensor) -> None:
    """Train one step with what `prepare` returns."""
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=LR))
    accelerator.backward(functional.cross_entropy(prepared(**batch).logits, labels))
    optimizer.step()


def with_lightning(net: nn.Module, batch: dict[str, Tensor], labels: Tensor) -> None:
    """Train one step with the wrapped model in a LightningModule."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, given: list[Tensor], _index: int) -> Tensor:
            return functional.cross_entropy(self.net(input_ids=given[0]).logits, given[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=LR)

    data = torch.utils.data.TensorDataset(batch["input_ids"], labels)
    lightning.Trainer(accelerator="cpu", max_steps=1, barebones=True).fit(
        Module(), torch.utils.data.DataLoader(data, batch_size=3)
    )


def with_trainer(net: nn.Module, batch: dict[str, Tensor], labels: Tensor) -> None:
    """Train one step with the Trainer of transformers; the loss is computed outside of the model."""
    import transformers

    def loss_of(outputs: Any, given: Tensor, **_: Any) -> Tensor:
        return functional.cross_entropy(outputs.logits, given)

    rows = [{"input_ids": row, "labels": label} for row, label in zip(batch["input_ids"], labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            max_steps=1,
            per_device_train_batch_size=3,
            learning_rate=LR,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.0,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        transformers.Trainer(net, settings, train_dataset=rows, compute_loss_func=loss_of).train()


def with_default_trainer(net: nn.Module, batch: dict[str, Tensor], _labels: Tensor) -> None:
    """Train three epochs of one step with the default settings of the Trainer, save, and resume after the last step.

    Resuming puts the saved weights back, so what is saved counts.
    """
    import transformers

    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in batch["input_ids"]]
    with tempfile.TemporaryDirectory() as folder:
        for resumed in (False, True):
            trainer = transformers.Trainer(net, transformers.TrainingArguments(folder), train_dataset=rows)
            trainer.train(resume_from_checkpoint=resumed)
            with torch.no_grad():
                for parameter in net.parameters() if not resumed else ():
                    parameter.zero_()


def as_the_default_trainer(net: nn.Module, batch: dict[str, Tensor], _labels: Tensor) -> None:
    """Train three steps with the Trainer's default optimizer, schedule, clipping and loss, written down.

    The Trainer divides the sum of the losses by the number of labels, also of those that predict nothing.
    """
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.0)
    given = {**batch, "attention_mask": torch.ones_like(batch["input_ids"]), "labels": batch["input_ids"]}
    labels = given["labels"].numel()
    for step in range(3):
        optimizer.param_groups[0]["lr"] = 5e-5 * (1 - step / 3)
        net(**given, num_items_in_batch=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def ways() -> tuple[Way, ...]:
    """Return the training loops that are tried."""
    return (
        Way("accelerate", "accelerate: one step", with_accelerate, in_plain_loop, classifier),
        Way("lightning", "Lightning: one step", with_lightning, in_plain_loop, classifier),
        Way("transformers", "Trainer of transformers: one step", with_trainer, in_plain_loop, classifier),
        Way(
            "transformers",
            "Trainer with its defaults: loss inside, tied weights, saved and resumed",
            with_default_trainer,
            as_the_default_trainer,
            language_model,
        ),
    )
