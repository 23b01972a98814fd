"""Train a small Transformer on characters with DFA, and print how well it predicts and how well it aligns.

Run: python examples/character_model.py [--rule dfa|backprop|frozen] [--norm post|pre] [--own] [--text FILE]
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign.lab.data import every_window, load_text, ngram, windows

RULES = {"dfa": fa.DFA, "backprop": fa.Backprop, "frozen": fa.Frozen}


def loss_fn(output: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of −ln p over the characters."""
    return functional.cross_entropy(output.flatten(0, -2), targets.flatten())


def main(arguments: list[str] | None = None) -> None:
    """Read the arguments, train, and print a line every 250 steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rule", choices=RULES, default="dfa")
    parser.add_argument("--norm", choices=["post", "pre"], default="post")
    parser.add_argument(
        "--own", action="store_true", help="a feedback matrix of its own for each point"
    )
    parser.add_argument(
        "--embedding", action="store_true", help="a point between the embedding and the first block"
    )
    parser.add_argument("--text", help="a file in UTF-8; Python's own documentation unless given")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args(arguments)

    text = load_text(given.text)
    model = fa.networks.Transformer(
        len(text.alphabet), width=96, blocks=3, context=64, norm=given.norm
    )
    # The control freezes all blocks but the first, and the embedding counts as one if it has a point of its own.
    embedding = ["block1.embedding"] if given.embedding or given.rule == "frozen" else []
    feedback = fa.feedback.Gaussian() if given.own else fa.feedback.Shared()
    net = RULES[given.rule](model, [*embedding, *model.block_names], feedback)
    optimizer = torch.optim.AdamW(net.parameters(), lr=given.lr)
    order, begin = torch.Generator().manual_seed(0), time.perf_counter()
    held_out = [part[::4] for part in every_window(text.validation, 64)]
    print(
        f"{text.name} ({text.digest[:15]}): pairs of characters predict {ngram(text, 2).validation_bits:.2f} bits"
    )
    for step in range(1, given.steps + 1):
        x, y = windows(text.train, 64, 16, order)
        loss = loss_fn(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 250 == 0 or step == given.steps:
            with torch.no_grad():
                bits = float(loss_fn(net(held_out[0]), held_out[1])) / math.log(2)
            cosines = fa.gradient_alignment(
                net, loss_fn, held_out[0][:16], held_out[1][:16], at="point"
            ).layers
            aligned = "  ".join(f"{name} {cosine:+.2f}" for name, cosine in cosines.items())
            print(
                f"step {step:5}: {bits:.2f} bits per character  {aligned}  {time.perf_counter() - begin:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
