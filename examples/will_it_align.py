# %% [markdown]
# # Will it align?
#
# DFA works well on some problems and badly on others. `fa.diagnose` tells you which kind you have. It looks at the
# errors of the untrained network, works out what theory expects, trains a copy for a few hundred steps, and measures
# how well the copy aligns. Your own model is not changed.

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

import feedalign as fa

digits = fa.lab.data.load("digits")
x, _ = fa.lab.data.prepare(digits)
y = digits.train_labels

# %% [markdown]
# ## A problem with balanced classes
#
# The digits have ten classes of about the same size. `diagnose` takes a model, a loss and batches.


# %%
def batches(x: torch.Tensor, y: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffle, and cut into batches of 32."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return list(zip(x[order].split(32), y[order].split(32), strict=True))


balanced = fa.diagnose(
    fa.networks.MLP([64, 100, 100, 10], seed=0), F.cross_entropy, batches(x, y), name="digits"
)
print(balanced.table())

# %% [markdown]
# Read the text from the end. "dfa aligns" says that the signals agree with backprop. The condition number of the
# errors is near 1: no output stands out, so the network learns all outputs at about the same speed.
#
# ## A problem with one dominant class
#
# Now class 3 appears twenty times as often as before.

# %%
often = torch.cat([torch.arange(len(y)), (y == 3).nonzero()[:, 0].repeat(19)])
unbalanced = fa.diagnose(
    fa.networks.MLP([64, 100, 100, 10], seed=0),
    F.cross_entropy,
    batches(x[often], y[often]),
    name="class 3 twenty times",
)
print(unbalanced.advice)

# %% [markdown]
# The condition number has grown: most of the error lies in one direction, and theory expects worse alignment for the
# other classes. The figure shows how the alignment of each layer changes in training for both problems.

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for found, style in ((balanced, "-"), (unbalanced, "--")):
    dfa = found.trained["dfa"]
    for layer, colour in enumerate(("#D55E00", "#0072B2")):
        axes.plot(
            dfa.steps,
            dfa.gradient_alignment[:, layer],
            style,
            color=colour,
            label=f"layer {layer + 1}, {found.name}",
        )
axes.set(xlabel="training steps", ylabel="gradient alignment (cosine)", ylim=(0, 1))
axes.legend(frameon=False, fontsize="small")
plt.show()

numbers = [found.errors.spectrum.condition_number for found in (balanced, unbalanced)]
print(f"condition number of the errors: {numbers[0]:.1f} and {numbers[1]:.1f}")
assert numbers[0] < 2 < numbers[1]

# %% [markdown]
# ## Where to go next
#
# * [Diagnose before training](../how-to/will-it-align.md) explains every line of the text, and the command `feedalign
#   diagnose`.
# * [Deep linear networks](../understanding/deep-linear.md) explains why badly conditioned outputs align worse.
