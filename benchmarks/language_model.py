"""What does direct feedback cost in a language model, where the outputs are a whole vocabulary?

A step is zero_grad, forward, cross-entropy, backward and plain SGD, on one thread. All arms take turns, so a drift of
the machine hits all alike. The arms are backprop and DFA with: F_l with all its entries; F_l = B_l Rᵀ with 64 columns
in R, and a B_l for each block or one for all; and the error taken before the vocabulary, where there are as many errors
as the stream is wide.

`limit` is the ratio of multiplications. Backprop needs three products with each weight matrix. DFA leaves out the
readout's product with the error, and in each block above the first the product that leads to the block's input; the
first block has the embedding below that product. The feedback's products come on top; R itself takes one
multiplication by a sign for each output. What costs no multiplications, such as the softmax over the vocabulary, is in
both steps, so a measured ratio lies between `limit` and 1. `feedback_share` is the memory of the feedback over the
memory of the parameters.

Run: python benchmarks/language_model.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _timing import interleaved, save
from step_time import step
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign.lab.training import one_thread

VOCABULARY = 50_257  # of GPT-2
BLOCKS, SEQUENCES, CONTEXT, RANK = 4, 4, 128, 64
WIDTHS = [128, 256, 512]
ASKED = {("sketched", 256): 0.85}

ARMS: dict[str, dict[str, Any]] = {
    "all entries": {"feedback": fa.feedback.Gaussian()},
    "sketched": {"feedback": fa.feedback.Sketched(RANK)},
    "sketched and shared": {"feedback": fa.feedback.Sketched(RANK, fa.feedback.Shared())},
    "before the vocabulary": {"feedback": fa.feedback.Gaussian(), "error_at": "readout.input"},
}


def network(width: int, vocabulary: int) -> fa.networks.Transformer:
    return fa.networks.Transformer(vocabulary, width=width, blocks=BLOCKS, context=CONTEXT)


def limit(arm: str, width: int, vocabulary: int) -> float:
    """Return the multiplications of a step of DFA for each token, over those of backprop."""
    attention = 2 * CONTEXT * width  # queries with keys, and weights with values; both sides of each are computed
    blocks = BLOCKS * (12 * width**2 + attention)
    readout = width * vocabulary
    outputs = {"all entries": vocabulary, "before the vocabulary": width}.get(arm, RANK)
    signals = outputs * width * (1 if "shared" in arm else BLOCKS)
    sketch = vocabulary if arm.startswith("sketched") else 0
    # Before the vocabulary the error itself is computed: the readout's product with it stays.
    saved = (BLOCKS - 1) * 3 * width**2 + (0 if arm == "before the vocabulary" else readout)
    return (3 * (blocks + readout) - saved + sketch + signals) / (3 * (blocks + readout))


def loss_of(output: Tensor, tokens: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, 1), tokens.flatten())


def measured(width: int, vocabulary: int, rounds: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(vocabulary, (2, SEQUENCES, CONTEXT), generator=generator)
    nets = {arm: fa.DFA(network(width, vocabulary), example_input=x[:1], **options) for arm, options in ARMS.items()}
    steps: list[Callable[[], None]] = [step(net, x, y, loss_of) for net in (network(width, vocabulary), *nets.values())]
    backprop, *seconds = interleaved(*steps, rounds=rounds, warm_up=1)
    rows = []
    for (arm, net), taken in zip(nets.items(), seconds, strict=True):
        stored = sum(buffer.numel() * buffer.element_size() for buffer in net.feedback.buffers())
        parameters = sum(p.numel() * p.element_size() for p in net.parameters())
        rows.append(
            {
                "width": width,
                "vocabulary": vocabulary,
                "tokens": SEQUENCES * CONTEXT,
                "feedback": arm,
                "dfa_over_backprop": round(taken / backprop, 3),
                "limit": round(limit(arm, width, vocabulary), 3),
                "asked": ASKED.get((arm, width)),
                "feedback_share": round(stored / parameters, 4),
                "backprop_step_ms": round(1e3 * backprop, 1),
            }
        )
    return rows


def main() -> None:
    with one_thread():
        save("language_model", [row for width in WIDTHS for row in measured(width, VOCABULARY, rounds=7)])


if __name__ == "__main__":
    main()
