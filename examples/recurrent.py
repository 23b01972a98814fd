"""A recurrent network has to remember a cue: DFA with the cell or the layer as its point, beside two references.

The first step of a sequence shows one of 8 cues, all later steps show noise. After the last step the network names the
cue. The delay is the number of steps between the cue and the end.

Run: python examples/recurrent.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa

CUES, INPUTS, UNITS, BATCH, NOISE = 8, 12, 64, 32, 0.3
DELAYS, SEEDS = (2, 6, 12), range(3)
ALIGNED = ("DFA, point: the cell", "backprop through time")  # whose alignment is measured
PLACES = (0, 1, 2, 4, 8, 12)  # steps before the end at which it is


class CellNet(nn.Module):
    """A cell that the model itself calls at every step; the last state is read."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.cell = nn.RNNCell(INPUTS, UNITS)
        self.readout = nn.Linear(UNITS, CUES)
        draw(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each cue, [batch, cues], for x [batch, step, inputs]."""
        h = x.new_zeros(len(x), UNITS)
        for step in x.unbind(1):
            h = self.cell(step, h)
        out: Tensor = self.readout(h)
        return out


class LayerNet(nn.Module):
    """The same network, with all steps in one module; its output is the whole sequence of states."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layer = nn.RNN(INPUTS, UNITS, batch_first=True)
        self.readout = nn.Linear(UNITS, CUES)
        draw(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each cue, [batch, cues], for x [batch, step, inputs]."""
        states, _ = self.layer(x)
        out: Tensor = self.readout(states[:, -1])
        return out


@torch.no_grad()
def draw(model: nn.Module, seed: int) -> None:
    """Draw the weights, the same for both networks: uniform, and recurrent ones orthogonal, so that states last."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.uniform_(-(UNITS**-0.5), UNITS**-0.5, generator=generator)
        if "weight_hh" in name:
            parameter.copy_(torch.linalg.qr(torch.randn(UNITS, UNITS, generator=generator))[0])


def batch(delay: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return sequences [batch, delay + 1, inputs] and their cues [batch]."""
    cues = torch.randint(CUES, (BATCH,), generator=generator)
    x = NOISE * torch.randn(BATCH, delay + 1, INPUTS, generator=generator)
    x[:, 0, :CUES] += functional.one_hot(cues, CUES)
    return x, cues


def train(net: nn.Module, delay: int, steps: int = 300) -> float:
    """Train, and return the accuracy on 64 fresh batches."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(steps):
        x, cues = batch(delay, generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(x), cues).backward()
        optimizer.step()
    with torch.no_grad():
        fresh = [batch(delay, generator) for _ in range(64)]
        return sum(float((net(x).argmax(1) == cues).float().mean()) for x, cues in fresh) / 64


def alignment_over_delay(net: Any, delay: int) -> list[float]:
    """Return the mean cosine of F e with the true derivative at the state of each step, from the last step back."""
    x, cues = batch(delay, torch.Generator().manual_seed(2))
    cell, states = net.model.cell, [torch.zeros(BATCH, UNITS)]
    for step in x.unbind(1):
        states.append(cell(step, states[-1]))
    output = net.model.readout(states[-1])
    error, *true = torch.autograd.grad(
        functional.cross_entropy(output, cues), [output, *states[:0:-1]]
    )
    sent = error @ net.feedback_matrices["cell"].T  # the same at every step
    return [float(functional.cosine_similarity(sent, one, dim=1).mean()) for one in true]


# Each takes the seed of the initial weights and of the feedback.
ARMS: dict[str, Callable[[int], nn.Module]] = {
    "backprop through time": lambda seed: fa.Backprop(CellNet(seed), points="cell", seed=seed),
    "DFA, layer, rows for each step": lambda seed: fa.DFA(
        LayerNet(seed), points="layer", feedback=fa.feedback.Gaussian(), seed=seed
    ),
    "DFA, layer, one matrix": lambda seed: fa.DFA(LayerNet(seed), points="layer", seed=seed),
    "DFA, point: the cell": lambda seed: fa.DFA(CellNet(seed), points="cell", seed=seed),
    "frozen layer": lambda seed: fa.ReadoutOnly(CellNet(seed), points="cell", seed=seed),
}


def main() -> None:
    """Print the accuracy of every arm at every delay, and the alignment of the cell over the delay."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    print(f"accuracy: mean, lowest and highest of {len(SEEDS)} seeds (chance {1 / CUES:.3f})")
    print(f"{'at a delay of':30}" + "".join(f"{delay:20}" for delay in DELAYS))
    trained: dict[tuple[str, int], list[nn.Module]] = {}
    for name, arm in ARMS.items():
        row = ""
        for delay in DELAYS:
            nets = trained[name, delay] = [arm(seed) for seed in SEEDS]
            found = [train(net, delay) for net in nets]
            row += f"  {sum(found) / len(found):.3f} ({min(found):.3f}-{max(found):.3f})"
        print(f"{name:30}{row}", flush=True)
    longest = DELAYS[-1]
    print(
        f"cosine of F e with the true derivative, mean over seeds, by steps before the end, at a delay of {longest}"
    )
    print(" " * 30 + "".join(f"{place:8}" for place in PLACES))
    for name in ALIGNED:
        by_seed = [alignment_over_delay(net, longest) for net in trained[name, longest]]
        means = [sum(cosines[place] for cosines in by_seed) / len(by_seed) for place in PLACES]
        print(f"{name:30}" + "".join(f"{mean:8.2f}" for mean in means))
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
