"""Lightning and Accelerate train a wrapped model as they train any model: the steps are those of a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import feedalign as fa

RULES = [fa.DFA, fa.FA, fa.KolenPollack, fa.DirectKolenPollack]
CLIP = 0.5


def wrapped(rule: Any) -> Any:
    return rule(fa.networks.MLP((5, 8, 6, 3), seed=0).double())


def batches() -> Any:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 5, generator=generator, dtype=torch.float64)
    return DataLoader(TensorDataset(x, torch.randint(3, (24,), generator=generator)), batch_size=6)


def optimizer_of(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)


def plain(rule: Any) -> dict[str, Tensor]:
    """Return the state after two epochs, a step every second batch, gradients clipped."""
    net = wrapped(rule)
    optimizer = optimizer_of(net)
    for _ in range(2):
        for i, (x, y) in enumerate(batches()):
            (functional.cross_entropy(net(x), y) / 2).backward()
            if i % 2:
                torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
                optimizer.step()
                optimizer.zero_grad()
    state: dict[str, Tensor] = net.state_dict()
    return state


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-11, atol=1e-13)


# Lightning itself uses a class that torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
# Lightning advises worker processes, which 24 samples in memory do not need.
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.parametrize("rule", RULES)
def test_lightning_trains_as_the_plain_loop(rule: Any, tmp_path: Path) -> None:
    """Its checkpoint is a `state_dict`, so the feedback is in it."""
    import lightning  # takes seconds, and only this test needs it

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = wrapped(rule)

        def training_step(self, batch: Any, _index: int) -> Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer_of(self.net)

    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=CLIP,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    module = Classifier()
    trainer.fit(module, batches())
    assert_same(module.net.state_dict(), plain(rule))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)["state_dict"]
    assert_same({name.removeprefix("net."): tensor for name, tensor in saved.items()}, plain(rule))


@pytest.mark.parametrize("rule", RULES)
def test_accelerate_trains_as_the_plain_loop(rule: Any, tmp_path: Path) -> None:
    import accelerate  # takes seconds, and only this test needs it

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = wrapped(rule)
    prepared, optimizer, loader = accelerator.prepare(net, optimizer_of(net), batches())
    for _ in range(2):
        for x, y in loader:
            with accelerator.accumulate(prepared):
                accelerator.backward(functional.cross_entropy(prepared(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(prepared.parameters(), CLIP)
                optimizer.step()
                optimizer.zero_grad()
    assert accelerator.unwrap_model(prepared) is net
    assert_same(net.state_dict(), plain(rule))
    accelerator.save_state(tmp_path / "saved")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for tensor in net.state_dict().values():
        tensor.zero_()
    accelerator.load_state(tmp_path / "saved")
    assert_same(net.state_dict(), before)
