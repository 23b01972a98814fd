# %% [markdown]
# # Train and measure your first network
#
# You will train a small network on images of digits in three ways: with direct feedback alignment (DFA), with
# backprop, and with a control whose hidden layers never learn. You will then see, layer by layer, how well the
# signals of DFA agree with backprop. The whole page takes about ten seconds on a laptop.

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

import feedalign as fa

# %% [markdown]
# ## Load the data
#
# The digits are 1797 images of 8 × 8 pixels. They come with scikit-learn, so nothing is downloaded. `prepare` gives
# every pixel mean 0 and variance 1 and makes each image a vector of 64 numbers.

# %%
digits = fa.lab.data.load("digits")
train_x, test_x = fa.lab.data.prepare(digits)
train_y, test_y = digits.train_labels, digits.test_labels
print(train_x.shape, test_x.shape)

# %% [markdown]
# ## Wrap a model
#
# `fa.networks.MLP` is an ordinary `nn.Sequential`. Any `nn.Module` of yours would do. `fa.DFA` wraps the model. This
# is the only new line: from now on, `loss.backward()` computes the update of DFA.

# %%
net = fa.DFA(fa.networks.MLP([64, 100, 100, 10], seed=0), seed=0)
print("feedback is sent to:", net.points)
print(
    "feedback matrices:",
    {name: tuple(matrix.shape) for name, matrix in net.feedback_matrices.items()},
)

# %% [markdown]
# The points `1` and `3` are the two hidden activations. Each has a random matrix with one row for each hidden unit
# and one column for each class. The matrices are buffers: they are saved with the model, and no optimizer changes
# them.
#
# ## Train
#
# The loop is your own. The monitor measures alignment at logarithmically spaced steps. It does not change the
# training.


# %%
def train(net: fa.Wrapped, epochs: int = 8) -> fa.AlignmentMonitor:
    """Train with plain SGD, and return what the monitor has seen."""
    monitor = fa.AlignmentMonitor(net, F.cross_entropy, train_x[:300], train_y[:300], every="log")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    order = torch.Generator().manual_seed(1)
    step = 0
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x), generator=order).split(32):
            monitor(step)
            optimizer.zero_grad()
            F.cross_entropy(net(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
            step += 1
    monitor.measure(step)
    return monitor


def accuracy(net: fa.Wrapped) -> float:
    """Return the share of test images that the network names rightly."""
    with torch.no_grad():
        return float((net(test_x).argmax(1) == test_y).double().mean())


monitor = train(net)
print(f"test accuracy with DFA: {accuracy(net):.3f}")

# %% [markdown]
# ## Compare with two controls
#
# An accuracy alone says little. Backprop shows what the same network can reach. `ReadoutOnly` trains the last layer
# on random hidden layers, so it shows what the hidden layers are worth. Both controls start from the same weights.

# %%
controls = {"backprop": fa.Backprop, "readout only": fa.ReadoutOnly}
accuracies = {"DFA": accuracy(net)}
curves = {"DFA": monitor}
for name, rule in controls.items():
    control = rule(fa.networks.MLP([64, 100, 100, 10], seed=0), seed=0)
    curves[name] = train(control)
    accuracies[name] = accuracy(control)
for name, value in accuracies.items():
    print(f"{name:12} {value:.3f}")
assert accuracies["readout only"] < accuracies["DFA"]

# %% [markdown]
# ## Look at the alignment
#
# Gradient alignment is the cosine between what DFA sends to a layer and what backprop would send. A cosine of 1 is
# the same direction, and 0 is no agreement. The dashed lines are the network trained by backprop: they show the
# cosine with feedback that the network has never used.

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, style in (("DFA", "-"), ("backprop", "--")):
    records = curves[name].records
    steps = [max(record.step, 0.5) for record in records]  # a logarithmic axis has no 0
    for layer, point in enumerate(net.points, start=1):
        cosines = [
            record.gradient.layers[point] for record in records if record.gradient is not None
        ]
        axes.plot(
            steps,
            cosines,
            style,
            color=("#D55E00", "#0072B2")[layer - 1],
            label=f"layer {layer}, {name}",
        )
axes.set(
    xscale="log", xlabel="training steps", ylabel="gradient alignment (cosine)", ylim=(-0.1, 1)
)
axes.legend(frameon=False, ncols=2)
plt.show()

# %% [markdown]
# Before training, the cosines are near 0, because the feedback is random. Under DFA the cosines rise: the weights turn
# until the random feedback points in a useful direction. Under backprop the cosines stay near 0.
#
# ## Where to go next
#
# * [Will it align?](will-it-align.md) asks this question of other data before a long training.
# * [Choose a rule](../how-to/choose-a-rule.md) compares the rules.
# * [Choose feedback points](../how-to/choose-points.md) wraps a model of your own.
