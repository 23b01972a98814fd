# %% [markdown]
# # A convolutional network
#
# DFA trains fully connected networks well and convolutional networks badly. In this tutorial you will see the problem
# on a small network, find its cause before any training, and try the remedy that works best: feedback that is
# learned.

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

import feedalign as fa

digits = fa.lab.data.load("digits")
train_x, test_x = (
    fa.lab.data.resize(images, 16) for images in (digits.train_images, digits.test_images)
)
train_y, test_y = digits.train_labels, digits.test_labels
print(train_x.shape)

# %% [markdown]
# ## How far can the weights align?
#
# DFA works because the weights of each layer turn towards the feedback. The weights of a convolution are the same at
# every position, and most of its connections do not exist. They cannot turn far. `fa.alignability` computes how far:
# the largest cosine that any kernel can reach. A fully connected layer has 1.


# %%
def model() -> fa.networks.ConvNet:
    """Return three convolutions and a readout."""
    return fa.networks.ConvNet((1, 16, 16), channels=(8, 16, 16), stride=(1, 2, 2), seed=0)


example = train_x[:1]
random = fa.DFA(model(), feedback=fa.feedback.Gaussian(), seed=0, example_input=example)
for name, layer in fa.alignability(random).layers.items():
    bounds = f"{layer.bound:.2f} with random feedback, {layer.channelwise:.2f} with channelwise"
    print(f"layer {name}: at most {bounds}")

# %% [markdown]
# ## Train with random and with learned feedback
#
# `DirectKolenPollack` learns its feedback by a local rule while the network trains. Backprop and `ReadoutOnly` are
# the controls.


# %%
def trained(net: fa.Wrapped, epochs: int = 4) -> float:
    """Train with Adam, and return the test accuracy."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x), generator=order).split(32):
            optimizer.zero_grad()
            F.cross_entropy(net(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        return float((net(test_x).argmax(1) == test_y).double().mean())


learned = fa.DirectKolenPollack(
    model(),
    feedback=fa.feedback.Smooth(2),
    lr=0.1,
    weight_decay=1e-2,
    seed=0,
    example_input=example,
)
nets = {
    "backprop": fa.Backprop(model(), seed=0, example_input=example),
    "DFA, learned feedback": learned,
    "DFA, random feedback": random,
    "readout only": fa.ReadoutOnly(model(), seed=0, example_input=example),
}
accuracies = {name: trained(net) for name, net in nets.items()}
for name, value in accuracies.items():
    print(f"{name:22} {value:.3f}")

# %%
figure, axes = plt.subplots(figsize=(6, 2.2), layout="constrained")
colours = ["#0072B2", "#E69F00", "#D55E00", "#7A7A7A"]
axes.barh(list(accuracies)[::-1], list(accuracies.values())[::-1], color=colours[::-1])
axes.set(xlim=(0.8, 1), xlabel="test accuracy after 4 epochs (one seed)")
plt.show()
assert accuracies["DFA, random feedback"] < accuracies["DFA, learned feedback"]

# %% [markdown]
# Random feedback stays behind backprop. Learned feedback closes most of the distance. This is one seed, and the order
# of neighbours can change with the seed. The experiment [convolution](../results/convolution.md) asks the same
# question with several seeds.
#
# ## Where to go next
#
# * [Convolutions](../understanding/convolutions.md) explains the bound, and what the bound does not explain.
# * [Choose a rule](../how-to/choose-a-rule.md#what-do-convolutional-networks-need) says which feedback fits images.
