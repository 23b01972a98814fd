"""A small Transformer, causal or not."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from feedalign.checks import flag, number_between, one_of, whole_number
from feedalign.errors import ArgumentError
from feedalign.memory import check_memory
from feedalign.networks.mlp import draw_uniform, drawn_linear
from feedalign.streams import torch_generator

Norm = Literal["pre", "post"]
Pool = Literal["none", "mean"]


class Transformer(nn.Sequential):
    """Embedded tokens, blocks of attention and a two-layer perceptron, and a linear readout.

    The modules are "block1", "block2", ... and "readout", in the order they run; the embedding is the first part of the
    first block, "block1.embedding". The output of a block is the residual stream, [batch, token, width].

    `points="auto"` takes the blocks as points, as `points=net.block_names` does. So what is sent to the first block is
    passed on to the embedding, as in backprop. With `points=["block1.embedding", *net.block_names]` the embedding is
    sent the error itself. Under `feedback=feedalign.feedback.Shared()` all points have one matrix.

    Weights and biases of linear layers are uniform on ±1/√fan_in, as PyTorch draws them, but from a generator of the
    network's own. Embeddings are uniform on ±1/√width and are multiplied by √width in the forward pass, so that the
    stream begins with entries of size one, and a tied readout with weights as small as those of any other layer.

    Args:
        vocabulary: number of different tokens, V.
        outputs: C, numbers at every output; as many as tokens unless given.
        width: of the residual stream.
        blocks: number of blocks.
        heads: of the attention; they must divide the width.
        context: longest sequence that the network takes.
        causal: whether a token sees only itself and the tokens before it (a language model), or all (an encoder).
        norm: "post" normalises the stream after each branch was added to it, as the first Transformers did. "pre"
            normalises what a branch reads, and the stream once more before the readout.
        tied: whether the readout's weight is the weight of the token embedding, as one parameter.
        pool: "none" gives an output for every token, [batch, token, C]. "mean" reads the mean of the stream over the
            tokens, [batch, C].
        bias: whether the linear layers have biases.
        dropout: share of the entries of embeddings and branches that training leaves out, from 0 to below 1. What is
            left out is drawn from torch's global generator, as `nn.Dropout` does.
        seed: seed of the initial weights.

    Attributes:
        block_names: names of the blocks.

    Raises:
        ArgumentError: a size or the seed is no whole number, a size is below one, heads do not divide the width, a tied
            readout has not one output for each token, weights do not fit this machine's memory, norm or pool is
            unknown, dropout is outside its range, or causal, tied or bias is no bool. In a forward pass: the tokens are
            no integers [batch, token], or more than the context.
    Source: Vaswani et al. (2017); Radford et al. (2019) for norm="pre".
    """

    def __init__(
        self,
        vocabulary: int,
        outputs: int | None = None,
        *,
        width: int = 96,
        blocks: int = 3,
        heads: int = 4,
        context: int = 64,
        causal: bool = True,
        norm: Norm = "post",
        tied: bool = False,
        pool: Pool = "none",
        bias: bool = True,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        vocabulary = whole_number("vocabulary", vocabulary, 1)
        outputs = vocabulary if outputs is None else whole_number("outputs", outputs, 1)
        width, heads = whole_number("width", width, 1), whole_number("heads", heads, 1)
        blocks, context = whole_number("blocks", blocks, 1), whole_number("context", context, 1)
        pre = one_of("norm", norm, get_args(Norm)) == "pre"
        mean = one_of("pool", pool, get_args(Pool)) == "mean"
        causal, tied, bias = flag("causal", causal), flag("tied", tied), flag("bias", bias)
        dropout = number_between("dropout", dropout, 0, 1, ends="[)")
        _check_fit(vocabulary, outputs, width, heads, tied)
        numbers = (vocabulary + context + outputs * (not tied)) * width + 12 * blocks * width**2
        check_memory(f"the weights of width={width}", numbers, "give a smaller width, vocabulary or context")
        generator = torch_generator(whole_number("seed", seed), "weights")
        linear = partial(drawn_linear, bias=bias, generator=generator)
        embedding = Embedding(vocabulary, context, width, dropout, generator)
        stack = [
            Block(width, heads, linear, None if i else embedding, causal=causal, pre=pre, bias=bias, dropout=dropout)
            for i in range(blocks)
        ]
        last = linear(width, outputs)
        if tied:
            last.weight = embedding.tokens.weight
        before = [*([nn.LayerNorm(width, bias=bias)] if pre else []), *([MeanOverTokens()] if mean else [])]
        names = tuple(f"block{i}" for i in range(1, blocks + 1))
        readout = nn.Sequential(*before, last) if before else last
        super().__init__(OrderedDict(zip((*names, "readout"), (*stack, readout), strict=True)))
        self.block_names = names


def _check_fit(vocabulary: int, outputs: int, width: int, heads: int, tied: bool) -> None:
    """Raise ArgumentError unless heads divide the width, and a tied readout has one output for each token."""
    if width % heads:
        raise ArgumentError(f"got width={width} and heads={heads}; every head gets width / heads numbers")
    if tied and outputs != vocabulary:
        raise ArgumentError(
            f"got outputs={outputs}, vocabulary={vocabulary} and tied=True; a tied readout has one output for each "
            "token, so leave outputs out, or give tied=False"
        )


class Embedding(nn.Module):
    """The vectors of tokens and of their places, added: integers [batch, token] to [batch, token, width]."""

    def __init__(self, vocabulary: int, context: int, width: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.tokens: nn.Embedding = nn.utils.skip_init(nn.Embedding, vocabulary, width)
        self.places: nn.Embedding = nn.utils.skip_init(nn.Embedding, context, width)
        for vectors in (self.tokens, self.places):
            draw_uniform(vectors.weight, width, generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Int[Tensor, "batch token"]) -> Float[Tensor, "batch token width"]:
        """Embed; ArgumentError if the tokens are no integers [batch, token], or more than the context."""
        context, width = self.places.weight.shape
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise ArgumentError(
                f"tokens must be integers [batch, token], got {tokens.dtype} of shape {list(tokens.shape)}; give their "
                "numbers in the vocabulary as an int64 Tensor"
            )
        if tokens.shape[1] > context:
            raise ArgumentError(
                f"got {tokens.shape[1]} tokens, the network takes context={context} at most; cut the sequence, or "
                "build the network with a longer context"
            )
        h = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        out: Tensor = self.dropout(h * math.sqrt(width))
        return out


class Block(nn.Module):
    """Attention, then a perceptron of four times the width; both are added to the stream [batch, token, width].

    The first block has an embedding, and takes the tokens.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        linear: Callable[[int, int], nn.Linear],
        embedding: Embedding | None,
        *,
        causal: bool,
        pre: bool,
        bias: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding, self.heads, self.causal, self.pre = embedding, heads, causal, pre
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
        self.attend = linear(width, 3 * width)  # queries, keys and values side by side
        self.project = linear(width, width)
        self.up, self.down = linear(width, 4 * width), linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Float[Tensor, "batch token width"]:
        """Return the stream after the block."""
        if self.embedding is not None:
            h = self.embedding(h)
        if self.pre:
            h = h + self.attention(self.norm1(h))
            return h + self.perceptron(self.norm2(h))
        h = self.norm1(h + self.attention(h))
        out: Tensor = self.norm2(h + self.perceptron(h))
        return out

    def attention(self, h: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return what each token gathers from the tokens that it sees."""
        q, k, v = self.attend(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [batch, head, token, ...]
        gathered = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.dropout(self.project(gathered.transpose(1, 2).flatten(2)))
        return out

    def perceptron(self, h: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return what each token makes of itself."""
        out: Tensor = self.dropout(self.down(functional.gelu(self.up(h))))
        return out


class MeanOverTokens(nn.Module):
    """The mean of the stream over the tokens: [batch, token, width] to [batch, width]."""

    def forward(self, h: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch width"]:
        """Return the mean."""
        return h.mean(1)
