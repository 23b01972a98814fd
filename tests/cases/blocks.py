"""Models that tests of several rooms share: one whose parts run in another order, one that can be checkpointed."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Residual(nn.Module):
    """Blocks with dropout, two points each; `save` says what is run again in the backward pass."""

    def __init__(self, save: str = "nothing", *, reentrant: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Dropout(0.3), nn.Linear(9, 5), nn.Tanh()) for _ in range(3)
        )
        self.readout = nn.Linear(5, 3)
        self.save, self.reentrant = save, reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.body, x, use_reentrant=self.reentrant) if self.save == "all" else self.body(x)
        logits: Tensor = self.readout(x)
        return logits

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant) if self.save == "blocks" else block(x)
        return x


class Branching(nn.Module):
    """A model that is no Sequential; `spare` never runs, and `gate` is registered before the layer it follows."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Tanh()
        self.lower = nn.Linear(4, 6)
        self.spare = nn.Linear(4, 6)
        self.upper = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.upper(self.gate(self.lower(x)))
        return out
