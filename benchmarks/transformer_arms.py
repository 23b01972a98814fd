"""What raises the part of backprop's gain that DFA recovers in a character model? One reduced training for each way.

The trainings are jobs of the experiment `transformer`: post-norm, width 32, two blocks, 1500 steps of 8 windows of 32
characters, one seed and one draw of the feedback. Of three learning rates each arm takes the one with the fewest bits
on one held-out part of the text; the bits that are shown are from the other part. An arm takes from 15 seconds to a
minute of a quiet core.

Run: python benchmarks/transformer_arms.py [name of an arm ...]
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from _timing import RESULTS, save
from torch import nn

from feedalign.lab.experiments import get
from feedalign.lab.experiments.transformer_job import Arm, CharacterConfig, CharacterTraining
from feedalign.lab.runs import compute_job
from feedalign.networks import Transformer

FACTORS = (1 / 3, 1.0, 3.0)
NAME = "transformer_arms"


@dataclass(frozen=True, kw_only=True)
class Trial(CharacterTraining):
    """A training of the experiment with more choices.

    Attributes:
        optimizer: "muon" takes Muon for the matrices of the blocks, and AdamW for all other parameters.
        error_at: where the error is taken; "" for the output.
    """

    kind: ClassVar[str] = "transformer-trial"
    optimizer: Literal["adamw", "muon"] = "adamw"
    error_at: str = ""

    def optimizer_of(self, net: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer that the trial says."""
        if self.optimizer == "adamw":
            return super().optimizer_of(net)
        return MuonAndAdamW(net, self.arm.lr, self.beta2)

    def options_of(self, rule: Any, model: Transformer) -> dict[str, Any]:
        """Return the options of the experiment, and the place of the error."""
        at = {"error_at": self.error_at} if self.error_at else {}
        return super().options_of(rule, model) | at


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the matrices of a Transformer's blocks, AdamW for embeddings, readout, biases and norms.

    Muon makes all singular values of a matrix's update alike. Its learning rate is scaled so that the entries of an
    update are as large as those of AdamW's, and both have one learning rate and one weight decay.
    """

    def __init__(self, net: nn.Module, lr: float, beta2: float) -> None:
        named = dict(net.named_parameters())
        matrices = {n: p for n, p in named.items() if p.ndim == 2 and "embedding" not in n and "readout" not in n}
        others = [p for n, p in named.items() if n not in matrices]
        decay = 0.01  # AdamW's own default
        self.parts = (
            torch.optim.Muon(list(matrices.values()), lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr, betas=(0.9, beta2), weight_decay=decay, fused=True),
        )
        super().__init__(named.values(), {"lr": lr})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters."""
        for part in self.parts:
            part.step(closure)  # type: ignore[no-untyped-call]


def trial(arm: Arm, **more: Any) -> Trial:
    """Return the training of an arm; `more` are fields of `Trial` that differ from those of the reduced preset."""
    reduced = CharacterConfig(
        text=get("transformer").CONFIGS["quick"].text,
        width=32,
        blocks=2,
        context=32,
        windows=12_000,
        passes=1,
        batch_size=8,
        warm_up=100,
        measurements=2,
        held_out=96,
        first_seed=1_000_000,
    )
    return Trial(**vars(reduced) | {"arm": arm, "seed": 0, "draw": 0} | more)


DFA = Arm("dfa", 1e-2, "post", "shared")
BACKPROP, FROZEN = Arm("backprop", 1e-2), Arm("frozen", 4e-2)
TRIALS = {
    "backprop": trial(BACKPROP),
    "frozen blocks": trial(FROZEN),
    "DFA": trial(DFA),
    "DFA, Muon": trial(DFA, optimizer="muon"),
    "DFA, learned feedback": trial(replace(DFA, rule="direct-kolen-pollack")),
    "DFA, error before the readout": trial(DFA, error_at="readout.input"),
    "DFA, beta2 0.999": trial(DFA, beta2=0.999),
    "DFA, no warm-up": trial(DFA, warm_up=1),
    "DFA, warm-up of 400 steps": trial(DFA, warm_up=400),
    "backprop, Muon": trial(BACKPROP, optimizer="muon"),
    "DFA, width 64": trial(replace(DFA, lr=3e-3), width=64),
    "backprop, width 64": trial(replace(BACKPROP, lr=3e-3), width=64),
    "frozen blocks, width 64": trial(FROZEN, width=64),
    "DFA, all three, width 64": trial(replace(DFA, lr=5e-3), optimizer="muon", warm_up=400, width=64),
    "backprop, all three, width 64": trial(replace(BACKPROP, lr=5e-3), optimizer="muon", warm_up=400, width=64),
}


def row(name: str) -> dict[str, Any]:
    """Train an arm at each learning rate, and return what it reaches at the best."""
    job, begin = TRIALS[name], time.process_time()
    runs = []
    for factor in FACTORS:
        arm = replace(job.arm, lr=job.arm.lr * factor)
        runs.append((arm.lr, compute_job(replace(job, arm=arm)).isel(step=-1)))
    best = min(range(len(runs)), key=lambda i: float(runs[i][1].choosing_bits.fillna(float("inf"))))
    lr, end = runs[best]
    return {
        "arm": name,
        "bits": round(float(end.bits), 3),
        "aligned": [round(float(cosine), 2) for cosine in end.gradient_alignment.dropna("block")],
        "lr": round(lr, 5),
        "at_the_edge": best in (0, len(runs) - 1),
        "bits_of_all_rates": [round(float(run.choosing_bits), 3) for _, run in runs],
        "cpu_seconds": round(time.process_time() - begin),
    }


def with_recovery(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows in order, those of DFA with the part that it recovers of backprop's gain over frozen blocks.

    The controls have the arm's width. Backprop is trained by AdamW; beside backprop with Muon the part is another one.
    Of frozen blocks no matrix learns, so Muon would change nothing.
    """
    rows = []
    for name in TRIALS:
        if name in found:
            width = ", width 64" if name.endswith("width 64") else ""
            parts = {}
            if name.startswith("DFA"):
                parts["recovery"] = _part(found, name, f"frozen blocks{width}", f"backprop{width}")
            if name in ("DFA, Muon", "DFA, all three, width 64"):
                parts["recovery_beside_muon"] = _part(
                    found, name, f"frozen blocks{width}", name.replace("DFA", "backprop")
                )
            rows.append(found[name] | {key: part for key, part in parts.items() if part is not None})
    return rows


def _part(found: dict[str, dict[str, Any]], *arms: str) -> float | None:
    """Return the part that an arm recovers beside frozen blocks and backprop; None while one is not known."""
    if not set(arms) <= found.keys():
        return None
    bits, frozen, backprop = (found[arm]["bits"] for arm in arms)
    part: float = round((frozen - bits) / (frozen - backprop), 3)
    return part


def main(names: list[str]) -> None:
    """Train the arms, and keep what other arms have reached before."""
    path = RESULTS / f"{NAME}.json"
    found = {each["arm"]: each for each in json.loads(path.read_text())} if names and path.exists() else {}
    for name in names or TRIALS:
        found[name] = row(name)
        print(found[name], flush=True)
    save(NAME, with_recovery(found))


if __name__ == "__main__":
    main(sys.argv[1:])
