# %% [markdown]
# # Write your own rule
#
# A rule of your own says one thing: what is sent to the hidden layers. `DirectRule` does the rest. It finds the
# feedback points, draws the matrices, keeps them as buffers, and leaves your training loop alone.
#
# In this tutorial you will write *ternary* feedback. Of the error of each sample, only the signs of the large entries
# are sent, as a cheap device would send them.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn import functional as F

import feedalign as fa
from feedalign.rules import DirectRule

# %% [markdown]
# ## The rule
#
# `message` gets the error e = ∂loss/∂output, with one row for each sample. What `message` returns goes through every
# feedback matrix. The readout keeps e itself.


# %%
class TernaryDFA(DirectRule):
    """Direct feedback of ternary errors: δ_l = (F_l ter(e)) ⊙ g'(a_l) for hidden layers."""

    def message(self, error: Tensor) -> Tensor:
        """Return −1, 0 or 1 for every entry, times the largest entry of its sample."""
        # With this scale the message becomes small as the sample is learned.
        scale = error.abs().amax(-1, keepdim=True)
        return scale * error.sign() * (error.abs() > scale / 2)


# %% [markdown]
# ## Train with it

# %%
digits = fa.lab.data.load("digits")
train_x, test_x = fa.lab.data.prepare(digits)
train_y, test_y = digits.train_labels, digits.test_labels


def train(net: DirectRule) -> tuple[float, list[float]]:
    """Train for ten epochs; return the test accuracy, and the gradient alignment after each epoch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(1)
    alignment = []
    for _ in range(10):
        alignment.append(
            fa.gradient_alignment(net, F.cross_entropy, train_x[:300], train_y[:300]).total
        )
        for batch in torch.randperm(len(train_x), generator=order).split(32):
            optimizer.zero_grad()
            F.cross_entropy(net(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return float((net(test_x).argmax(1) == test_y).double().mean()), alignment


ternary = TernaryDFA(fa.networks.MLP([64, 100, 100, 10], seed=0), seed=0)
accuracy, alignment = train(ternary)
plain_accuracy, plain_alignment = train(fa.DFA(fa.networks.MLP([64, 100, 100, 10], seed=0), seed=0))
print(f"test accuracy: ternary errors {accuracy:.3f}, true errors {plain_accuracy:.3f}")
assert accuracy > 0.9

# %%
figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
axes.plot(plain_alignment, "o-", color="#D55E00", label="DFA")
axes.plot(alignment, "s-", color="#009E73", label="ternary DFA")
axes.set(xlabel="epoch", ylabel="gradient alignment (cosine)", ylim=(0, 1))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Prove that the rule is the rule
#
# `check_rule` computes every gradient a second time, slowly and in float64, without the code of the rule. For a rule
# of your own, write the message down a second time, as plainly as you can. A slip in one of the two versions then
# shows.


# %%
def written_down(error: Tensor) -> Tensor:
    """Return the message again, entry by entry."""
    message = torch.zeros_like(error)
    for row, errors in zip(message, error, strict=True):
        largest = max(abs(float(value)) for value in errors)
        for i, value in enumerate(errors):
            if abs(value) > largest / 2:
                row[i] = largest if value > 0 else -largest
    return message


check = fa.check_rule(ternary, F.cross_entropy, train_x[:32], train_y[:32], message=written_down)
print(check)
assert check.worst < 1e-10

# %% [markdown]
# The cosines beside the errors say how far the update lies from backprop's. A rule that is not backprop must not have
# ones there, except in the readout.
#
# ## What else can a rule change?
#
# Override these methods in a class of your own:
#
# * **Send something else than e:** `DirectRule.message`. It gets e, `[*batch, C]`, and returns what goes through
#   every matrix.
# * **Send something that depends on earlier errors:** set `gathers = True`, and override `DirectRule.gather` and
#   `DirectRule.message_now` too. `gather` gets e and the processes that train together. Keep what you need in
#   buffers.
# * **Learn direct feedback:** set `learns_feedback = True`, and override `DirectRule.learn`. It gets the matrix, the
#   activation, e, and the processes that train together; with `mask=` also which activations are real. It changes the
#   matrix in place.
# * **Use other backward weights, layer by layer:** `SequentialRule.backward_weight`. It gets the feedback and the
#   weight, in the weight's shape, and returns what replaces the weight in the backward pass.
# * **Learn these backward weights:** set `learns_feedback = True`, and override `SequentialRule.learn`. It gets the
#   feedback and the weight's gradient, `[fan-in, outputs]`, and changes the feedback in place.
# * **Do anything else on a graph that is cut at the points:** `DirectRule.tie`. It gets the pass, which holds the
#   activations in the order in which they ran, and the output. It returns the output, tied to the activations by an
#   autograd function.
# * **Start another family of rules:** write a sibling of `DirectRule` over `Wrapped`, with `look`, `draw` and `run`.
#
# `DFA` is a `DirectRule` whose message is e. `FA` is a `SequentialRule` whose backward weight is its feedback. The
# reference page [Writing rules](../reference/extending.md) has these methods.
#
# A rule that belongs in the package goes to a file of its own in `src/feedalign/rules/direct/` or
# `src/feedalign/rules/sequential/`, and into `rules/registry.py`. `feedalign.rules` and `feedalign` export it. Its
# formula, written slowly, goes to `verify/reference.py`, and its laws to `tests/laws/`.
