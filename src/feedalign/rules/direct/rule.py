"""Rules that send the error from the output straight to every hidden layer; they differ in what is sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from feedalign.anatomy import (
    Block,
    Entries,
    ErrorTap,
    InputMasks,
    Mask,
    PassMasks,
    UnnamedPadding,
    check_points,
    convolution_between,
    find_padding,
    hook_places,
    is_chain,
    mean_jacobians,
    place_problems,
    refuse_square_maps,
    trace,
)
from feedalign.checks import flag
from feedalign.errors import ArgumentError, PointsError
from feedalign.feedback import Convolution, Feedback, Place, needs_jacobian
from feedalign.rules.direct.containers import around_points, hooks_for_users
from feedalign.rules.direct.cut import Cut
from feedalign.rules.direct.hooks import AtPlaces, GroupNormHook, PointHooks, RanHook
from feedalign.rules.direct.one_pass import run_pass
from feedalign.rules.direct.recompute import recomputed
from feedalign.rules.distributed import Processes, sharded_modules
from feedalign.rules.wrapped import Wrapped, check_wrapped
from feedalign.torch_private import any_backward_hooks


class DirectRule(Wrapped):
    """A rule that sends every hidden layer one message, through the layer's own matrix, while the readout keeps e.

    A subclass says what the message is (`message`). If the message depends on errors seen before, the subclass says
    what it takes from each error (`gather`). If the rule learns its feedback, the subclass says how (`learn`).

    No gradient passes a feedback point: the activation is detached there, and what lies below the point learns from
    what the rule sends alone. Where a point's module returns a tuple (`nn.LSTM`, `nn.GRU`, `nn.MultiheadAttention`),
    its first entry is the activation; the other entries, such as the last hidden state, are detached too and are sent
    nothing. A module that runs several times in a forward pass is sent its feedback at each run, through the same
    matrix. Forward hooks that a point's module has when the matrices are drawn run before the cut and belong to the
    block below. Hooks that are set later see what goes on to the next block.

    Every learning pass accounts for each point. A point that a model skips, as layer dropout does, is sent nothing, and
    the error passes the skipped place as in backprop. A point whose module has been replaced is an error.

    Args:
        model: any module. The rule uses this module itself, not a copy. The module may take several inputs, by position
            or by keyword.
        points: dotted names of the modules whose outputs are the hidden activations. "auto" finds them in an
            `nn.Sequential`, so in every network of `feedalign.networks`.
        feedback: recipe of the feedback matrices. Unless given it is `feedback.Automatic()`: Gaussian of standard
            deviation 1/√features, and one such matrix for all tokens where a sample is known to be tokens.
        seed: seed of the feedback, which has a generator of its own.
        example_input: one input of the model (a tuple for several). It is needed only to have the matrices before the
            first forward pass of a model that does not begin with a linear layer. Otherwise that pass draws them.
        output: of a model that returns a tuple, list, dict or dataclass, the entry at which the error is taken: an
            index, a key, a field's name, or a function from the output to that entry. The wrapped model returns the
            same structure. Where the loss uses other entries too, their gradients train what lies between the last
            points below those entries and the entries, as in backprop. They pass no point, and they are no part of the
            error that is sent. For a loss of several entries, such as start and end of an answer, give a tuple: their
            errors side by side are the C outputs.
        batch_dims: how many leading axes of the output and of every point are the batch. The other axes of the output,
            taken as one, are the C outputs. Unless given, all axes but the last are the batch: with an output
            [batch, token, C] every token is sent its own error, through a matrix [features of a token, C]. Give 1 for
            a sequence or an image whose error is sent as a whole, and for an output [batch] without a C.
        error_at: dotted name of a module above all points. The error is then taken at what this module returns, inside
            of the forward pass, so that the model may compute the loss itself. With ".input" after the name the error
            is taken at the module's input: "lm_head.input" for the error before the vocabulary projection. For a loss
            of several heads give several names: their errors side by side are the C outputs. Where such a module
            returns more than a Tensor, `output` is the entry of what the module returns.
        mask: which entries of a sequence are real, the others being padding: the name of an input of the model, such
            as "attention_mask", or a function of the inputs (args, kwargs). The mask is a Tensor [batch, token] that
            is true, or 1, for real entries. Padding is sent nothing, and no rule that counts or learns from what it
            has seen counts padding. In a pass where this input is not given, or None, every entry is real. Unless
            `mask` is given, entries of the batch whose error is zero count as padding, and the first look at the model
            shows which inputs mark padding, and at which points: see `find_padding`. To take all tokens as real, give
            `lambda args, kwargs: None`. An encoder and a decoder have padding of their own: give a dict of masks by
            point, {"encoder.0": "attention_mask"}, and under the key "" the mask of the error and of all points that
            the dict does not name.
        recompute: keep nothing of the forward pass. The backward pass runs the model a second time, and each block
            learns and is freed at once, so a step holds the graph of one block. The output must be a Tensor. In a
            compiled model this has no effect: the compiler decides what is kept.

    Attributes:
        points: names of the feedback points, in the order in which they run once that is known.
        blocks: what runs between the points, in order; empty until the matrices are drawn.
        chain: whether the model is one, see `is_chain`.
        around: the modules around points, by name.
        unhooked: the modules that are no points.

    Raises:
        PointsError: points are unknown, repeated, none, never run, without a Tensor, or cannot be found by "auto";
            `feedalign.validate` lists everything of that kind at once. In a learning pass: a point runs without
            gradients, its module has been replaced, or it runs above a module of `error_at`.
        ArgumentError: `feedback` is no recipe, `batch_dims` is no number of axes, `mask` is no input of the model,
            `recompute` is no bool, or `recompute` with `output` or `error_at`. In compiled code: an input that may be a
            mask of padding comes late.
        OutputError: (first pass) the error cannot be taken at the output, or at the entry `output`. In a learning pass:
            a module of `error_at` does not run, runs twice, or leads to nothing that the model returns. In a backward
            pass: the loss does not pass any module of `error_at`.
    """

    sends: ClassVar[bool] = True  # to the points, in training

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        output: Entries = None,
        batch_dims: int | None = None,
        error_at: str | Iterable[str] | None = None,
        mask: Mask = None,
        recompute: bool = False,
    ) -> None:
        super().__init__(model, feedback, seed, ErrorTap.given(output, batch_dims, error_at))
        recompute = flag("recompute", recompute)
        if recompute and not (output is None and error_at is None):
            given = f"output={output!r}" if error_at is None else f"error_at={error_at!r}"
            raise ArgumentError(
                f"recompute=True with {given}: the second run gives the Tensor of the error alone; wrap a "
                "model that returns this Tensor, or checkpoint the blocks (torch.utils.checkpoint)"
            )
        self.recompute = recompute
        self.points = check_points(model, points)
        if wrong := place_problems(model, self.error_tap.places, self.points):
            raise PointsError("; ".join(f"error_at: {problem}" for problem in wrong))
        self.mask = InputMasks.of(model, mask, self.points)
        self.unnamed = unnamed = UnnamedPadding.of(model, self.points) if mask is None else None
        self.blocks: tuple[Block, ...] = ()
        self.hooked = {name: model.get_submodule(name) for name in self.points}
        self._hook()
        if example_input is not None or mask is None:  # a model with a mask takes sequences, not a row of numbers
            self.prepare_early(example_input)
        if example_input is None:  # one row of numbers says nothing about padding
            self.unnamed = unnamed

    def message(self, error: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return what is sent through every F_l: here e = ∂loss/∂output itself, with the loss's reduction factor."""
        return error

    def message_now(self) -> Callable[[Tensor], Tensor]:
        """Return `message` as it is for the pass that begins now, whatever is gathered before its backward pass."""
        return self.message

    def gather(self, error: Float[Tensor, "*batch outputs"], processes: Processes) -> None:
        """Keep what later messages take from the errors; called if `gathers`, once in a backward pass.

        Gradients are off in here. The error is that of this process; `processes` sums over all of them.
        """

    def learn(
        self,
        matrix: Float[Tensor, "features outputs"],
        hidden: Float[Tensor, "*batch features"],
        error: Float[Tensor, "*batch outputs"],
        processes: Processes,
        counted: Bool[Tensor, "*batch features"] | None = None,
    ) -> None:
        """Change F_l in place; called if `learns_feedback`, for each run of a point, in the backward pass.

        Gradients are off in here. The change has no effect on what this pass sends. Activations and error are those of
        this process, and F_l becomes the mean over the processes. A change that is not finite is left out.

        Args:
            matrix: F_l.
            hidden: activations, zero where the mask says padding.
            error: e, zero where the mask says padding.
            processes: those that train the model together.
            counted: which activations are real; given only where the pass has a mask.
        """

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on the rule's graph and return its output."""
        if self.recompute and not torch.compiler.is_compiling():
            return recomputed(self, args, kwargs)
        return run_pass(self, Cut(self, masks=self.masks_of(args, kwargs)), args, kwargs)

    def run_without_learning(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the output of the model on the graph that sends `message`; feedback and averages stay as they are.

        For measurements. Under a control, which sends nothing in training, this is what DFA would send.
        """
        return run_pass(self, Cut(self, learning=False, masks=self.masks_of(args, kwargs)), args, kwargs)

    def masks_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PassMasks | None:
        """Return which entries of the inputs are real; None if all of them are."""
        if self.unnamed is None:
            return self.mask(args, kwargs)
        if self.unnamed.has_late(args, kwargs) and not sharded_modules(self.model):
            self.unnamed = find_padding(self.unnamed, self.model, self.error_tap, args, kwargs)
        return self.unnamed(args, kwargs)

    def begin(self) -> None:
        """Before the first learning pass, set the hooks anew if the model is sharded, behind those of `fully_shard`."""
        super().begin()
        if sharded_modules(self.model):
            if self.recompute:
                self.begun = False
                raise ArgumentError(
                    "recompute=True with a model that fully_shard has sharded: in the second run the gradients would "
                    "not come to the shards; checkpoint the blocks instead (torch.utils.checkpoint)"
                )
            self._hook()

    @property
    def needs_data(self) -> bool:
        """Whether the recipe looks at the Jacobians of a first batch."""
        return needs_jacobian(self.feedback.recipe)

    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the blocks, the Jacobians if the recipe looks at them, and what shows of padding that nobody named."""
        self.mask.check(args, kwargs)
        given = self.model, self.points, self.error_tap, args, kwargs
        blocks = trace(*given)
        if (masks := self.mask(args, kwargs)) is not None:
            refuse_square_maps(masks, blocks, self.model)
        unnamed = self.unnamed
        # Without tokens there is no padding. The processes of a sharded model run it together, each on another batch.
        if not any(len(block.shape) > 1 for block in blocks[:-1]) or sharded_modules(self.model):
            unnamed = None
        if unnamed is not None:
            unnamed = find_padding(unnamed, self.model, self.error_tap, args, kwargs)
        return blocks, mean_jacobians(*given) if self.needs_data else {}, unnamed

    def draw(self, found: Any) -> None:
        """Draw the matrix of every point."""
        blocks: tuple[Block, ...]
        jacobians: dict[str, Tensor]
        blocks, jacobians, self.unnamed = found
        modules = dict(self.model.named_modules())
        links = [convolution_between(*pair, modules) for pair in itertools.pairwise(blocks[:-1])]
        places = [
            Place(
                name=block.point,
                features=block.features,
                outputs=blocks[-1].features,
                shape=block.shape,
                widest=max(each.features for each in blocks[:-1]),
                seed=self.feedback.seed,
                jacobian=jacobians.get(block.point),
                convolutions=tuple(link for link in links if isinstance(link, Convolution)),
                tokens=block.tokens,
                widest_token=max(each.shape[-1] for each in blocks[:-1]),
                summed=block.summed,
            )
            for block in {block.point: block for block in blocks[:-1]}.values()
        ]
        self.feedback.draw(places, self.model)
        self.blocks, self.points, self.drawn = blocks, tuple(place.name for place in places), True
        self._hook()  # again, behind hooks that the model has set in its first run

    def _hook(self) -> None:
        """Set the hooks of the points, behind all others that are there."""
        for handle in self.handles:
            handle.remove()
        self.handles = [m.register_forward_hook(PointHooks(self.slot, name).after) for name, m in self.hooked.items()]
        self.around = around_points(self.model, self.hooked.values())
        self.chain = is_chain(self.model)
        self.unhooked = [module for module in self.model.modules() if module not in self.hooked.values()]
        if not self.chain:  # the modules of a chain run in every pass
            for name in dict.fromkeys(name for block in self.blocks[:-1] for name in block.called):
                if name not in self.points:
                    self.handles.append(self.model.get_submodule(name).register_forward_hook(RanHook(self.slot, name)))
        norms = (module for module in self.model.modules() if isinstance(module, nn.GroupNorm))
        self.handles += [module.register_forward_pre_hook(GroupNormHook(self.slot)) for module in norms]
        self.handles += hook_places(self.model, self.error_tap, AtPlaces(self.slot).see)

    def watch(self) -> Sequence[RemovableHandle]:
        """Where users have set backward hooks on points, or around points, set the hooks by which they are called."""
        found = any_backward_hooks(self.hooked.values()) or any_backward_hooks(self.around.values())
        return hooks_for_users(self.slot, self.hooked, self.around) if found else ()


def check_direct(net: object, instead: str) -> None:
    """Raise ArgumentError unless `net` is a model in a direct rule, which has feedback from the output at its points.

    `instead` says what to do with a model in a sequential rule.
    """
    check_wrapped(net)
    if not isinstance(net, DirectRule):
        raise ArgumentError(f"{type(net).__name__} sends no error straight from the output to a layer; {instead}")
