# %% [markdown]
# # A Transformer
#
# Can direct feedback alignment train a language model? In this tutorial you will train a small Transformer on
# characters in four ways and see three things: where to put the feedback points, why all blocks should share one
# feedback matrix, and why a control with frozen blocks is needed. The page takes about half a minute.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn import functional as F

import feedalign as fa
from feedalign.lab.data import every_window, load_text, ngram, windows

# %% [markdown]
# ## Load a text
#
# The text is the help of Python itself, so nothing is downloaded. Counting pairs of characters is the simplest
# language model. A Transformer that does not beat the pairs has not learned to use what stands before the last
# character.

# %%
text = load_text()
pairs = ngram(text, 2).validation_bits
print(
    f"{text.name}: {len(text.alphabet)} different characters; pairs of characters predict {pairs:.2f} bits"
)
CONTEXT = 32
held_x, held_y = (part[::16][:64] for part in every_window(text.validation, CONTEXT))

# %% [markdown]
# ## Where do the points go?
#
# A point is the output of a whole block, after its residual connection. If a point stood inside of a block, the skip
# connection would still carry the true gradient past the point. `net.block_names` has the blocks.


# %%
def model() -> fa.networks.Transformer:
    """Return two blocks of attention and a readout."""
    return fa.networks.Transformer(len(text.alphabet), width=64, blocks=2, context=CONTEXT, seed=0)


blocks = model().block_names
print(blocks)

# %% [markdown]
# ## Which feedback?
#
# Every block adds to one residual stream, and the readout reads this stream. With one matrix for all points
# (`fa.feedback.Shared()`) all blocks are told the same. With a matrix for each point, the blocks are told different
# things about one stream. [Deep linear
# networks](../understanding/deep-linear.md#residual-networks-own-feedback-against-shared-feedback) has the theory.
#
# `Frozen` is the control: it trains the embedding, one block and the readout by backprop. DFA has to be better, or
# its signals have taught the frozen blocks nothing.

# %%
nets = {
    "backprop": fa.Backprop(model(), blocks),
    "DFA, shared feedback": fa.DFA(model(), blocks, fa.feedback.Shared()),
    "DFA, own feedback": fa.DFA(model(), blocks, fa.feedback.Gaussian()),
    "frozen blocks": fa.Frozen(model(), ["block1.embedding", *blocks]),
}

# %% [markdown]
# ## Train
#
# Each token of the output has an error of its own, and this error goes to the same token of each block.


# %%
def loss_fn(output: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of −ln p over all characters."""
    return F.cross_entropy(output.flatten(0, -2), targets.flatten())


def train(net: fa.Wrapped, steps: int = 250) -> list[tuple[int, float]]:
    """Train with AdamW; return the bits per character on held-out text along training."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(0)
    curve = []
    for step in range(steps + 1):
        if step % 50 == 0:
            with torch.no_grad():
                curve.append((step, loss_fn(net(held_x), held_y).item() / math.log(2)))
        x, y = windows(text.train, CONTEXT, 16, order)
        optimizer.zero_grad()
        loss_fn(net(x), y).backward()
        optimizer.step()
    return curve


curves = {name: train(net) for name, net in nets.items()}
for name, curve in curves.items():
    print(f"{name:22} {curve[-1][1]:.2f} bits per character")

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for (name, curve), colour in zip(
    curves.items(), ("#0072B2", "#D55E00", "#CC79A7", "#7A7A7A"), strict=True
):
    axes.plot(*zip(*curve[1:], strict=True), "o-", ms=4, color=colour, label=name)
axes.axhline(pairs, color="#7A7A7A", ls=":", label="pairs of characters")
axes.set(xlabel="training steps", ylabel="bits per character, held-out text")
axes.legend(frameon=False, fontsize="small")
plt.show()
bits = {name: curve[-1][1] for name, curve in curves.items()}
assert bits["backprop"] < bits["DFA, shared feedback"] < bits["frozen blocks"]

# %% [markdown]
# ## How well does it align?

# %%
for name in ("DFA, shared feedback", "DFA, own feedback"):
    cosines = fa.gradient_alignment(
        nets[name], loss_fn, held_x[:16], held_y[:16], at="point"
    ).layers
    print(f"{name}: " + ", ".join(f"{block} {cosine:+.2f}" for block, cosine in cosines.items()))

# %% [markdown]
# DFA is better than the frozen blocks and worse than backprop. Shared feedback aligns better than own feedback. This
# is one seed of a small model. `python examples/character_model.py --help` trains a larger one.
#
# ## Where to go next
#
# * [Choose a rule](../how-to/choose-a-rule.md#what-do-transformers-need) says what else helps in a Transformer.
# * [Use Hugging Face models](../how-to/hugging-face.md) wraps GPT-2 and its relatives.
