"""One training step of a wrapped model in other people's training loops, beside the same step in a plain loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

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


def outcomes() -> Iterator[tuple[str, str, dict[str, Outcome]]]:
    """Yield package, name, and the outcome of each rule."""
    for package, (name, train) in FRAMEWORKS.items():
        missing = version_of(package) is None or version_of("transformers") is None
        yield package, name, {rule: Outcome("not tried") if missing else _outcome(rule, train) for rule in RULES}


def _outcome(rule: str, train: Train) -> Outcome:
    """Compare the weights and the feedback after one step with those of the plain loop."""
    start = time.monotonic()
    batch, labels = {"input_ids": tokens()}, torch.tensor([0, 1, 2])
    states = []
    try:
        for each in (in_plain_loop, train):
            torch.manual_seed(0)
            net = _wrapped(rule)
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
    words = f"after a step other numbers than in a plain loop: {', '.join(wrong[:5])}" if wrong else ""
    return Outcome("failed" if wrong else "equal", words, worst, time.monotonic() - start)


def _wrapped(rule: str) -> Any:
    """Return a tiny BERT without dropout in a rule: the loops draw random numbers at other times."""
    sizes = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = maker("BertForSequenceClassification", sizes)()
    wrap = RULES[rule]
    if wrap in SEQUENTIAL:
        return wrap(model, output="logits")
    return wrap(model, ("bert.encoder.layer.0", "bert.encoder.layer.1"), output="logits")


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


FRAMEWORKS: dict[str, tuple[str, Train]] = {
    "accelerate": ("accelerate: one step", with_accelerate),
    "lightning": ("Lightning: one step", with_lightning),
    "transformers": ("Trainer of transformers: one step", with_trainer),
}
