"""What every rule shares: a wrapped model, its feedback points and matrices, and the true gradient on request."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from feedalign.errors import ArgumentError, FeedbackShapeError, OutputError, PointsError
from feedalign.feedback import Convolution, Feedback, Gaussian, Place, check_recipe, draw_at, needs_jacobian
from feedalign.rules import problems
from feedalign.rules.hooks import Handle, after
from feedalign.rules.outputs import Entry, ErrorTap, exchange, mapped
from feedalign.rules.points import (
    Block,
    activation_of,
    check_points,
    convolution_between,
    mean_jacobians,
    trace,
    weight_matrices,
)
from feedalign.rules.processes import group_of_pass, of_first

Taps = list[tuple[str, Tensor]]


class Rule(nn.Module):
    """A model whose `loss.backward()` computes a learning rule's update; the training loop stays as it is.

    A subclass says whether the graph is cut at the feedback points (`cuts`) and how the error then reaches the hidden
    activations (`connect`).

    Where a rule cuts the graph, no gradient passes a point: the activation is detached there, and what lies below it
    learns from what the rule sends to it alone. Of a module that returns a tuple (`nn.LSTM`, `nn.GRU`,
    `nn.MultiheadAttention`), the first entry is the activation; the others, such as the last hidden state, are detached
    too, and are sent nothing. A module that runs several times in a forward pass is sent its feedback at each run,
    through the same matrix. Forward hooks that a point's module has when it is wrapped run before the cut, as a part
    of the block; hooks set later see what goes on to the next one.

    Args:
        model: any module; it is used as it is, not copied. It may take several inputs, by position or by keyword.
        points: dotted names of the modules whose outputs are the hidden activations; "auto" finds them in an
            `nn.Sequential` (so in every network of `feedalign.networks`).
        feedback: recipe of the feedback matrices; Gaussian of standard deviation 1/√features unless given.
        seed: seed of the feedback, in a generator of its own: nothing else draws from it, it draws from nothing else.
        example_input: one input of the model (a tuple for several). Needed only to have the matrices before the first
            forward pass in models that do not begin with a linear layer; otherwise they are drawn at the first pass.
        output: of a model that returns a tuple, list, dict or dataclass, the entry at which the error is taken: an
            index, a key, a field's name, or a function from the output to that entry. The wrapped model returns the
            same structure. Where the loss uses other entries too, their gradients train what lies between the last
            points below them and them, as in backprop; they pass no point, and are no part of the error that is sent.
        batch_dims: how many leading axes of the output and of every point are the batch; the others of the output
            are, as one, the C outputs. All axes but the last unless given: with an output [batch, token, C] every
            token is sent its own error, through a matrix [features of a token, C], which `batch_dims=2` spells out.
            Give 1 for a sequence or an image whose error is sent as a whole, and for an output [batch] without a C.

    Attributes:
        model: the wrapped module.
        points: names of the feedback points.
        error_tap: where in the output the error is taken.
        blocks: what runs between the points, in order; empty until the matrices are drawn.

    Raises:
        PointsError: points are unknown, repeated, none, never run, without a Tensor, or cannot be found by "auto".
            `feedalign.validate` lists everything of that kind at once.
        ArgumentError: `feedback` is no recipe, or `batch_dims` no number of axes.
        OutputError: (first pass) the error cannot be taken of the output, or of `output`.
        PointsError: (any pass) a point runs without gradients while the rule learns.
    """

    cuts: ClassVar[bool] = True
    learns_feedback: ClassVar[bool] = False
    gathers: ClassVar[bool] = False  # from every backward pass, over all processes that run it
    _probes: ClassVar[bool] = True  # a Jacobian takes data, so no matrix can be drawn without

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        output: Entry = None,
        batch_dims: int | None = None,
    ) -> None:
        super().__init__()
        check_bare(model)
        if feedback is not None:
            check_recipe(feedback)
        self.error_tap = ErrorTap(output, batch_dims)
        self.points = self._choose(model, points)
        self.model = model
        self.recipe = Gaussian() if feedback is None else feedback
        self.seed = seed
        self.feedback = _Matrices()
        self.gathered = _Matrices()  # what a rule that gathers keeps
        self.blocks: tuple[Block, ...] = ()
        self._pass = _Pass()
        modules = dict(model.named_modules())
        self._handles = [handle for name in self.points for handle in self._attach(name, modules[name])]
        if example_input is not None:
            self._prepare(example_input if isinstance(example_input, tuple) else (example_input,), {})
        elif (
            not (self._probes and needs_jacobian(self.recipe))
            and (found := self._trace_from_linear_input()) is not None
        ):
            self._draw(found, {})

    @property
    def feedback_matrices(self) -> dict[str, Tensor]:
        """F_l, [features, outputs], by point, in the order the points run.

        They are buffers: saved in `state_dict`, moved and cast with the model, never among its parameters.

        Raises:
            PointsError: no forward pass has told their shapes yet.
        """
        if not self.feedback.matrices:
            raise PointsError(
                "the feedback is not drawn yet, since the shapes at the points are not known; "
                "give example_input=, or run one forward pass"
            )
        return self.feedback.matrices

    @property
    def learns(self) -> bool:
        """Whether a forward pass now would build the rule's graph, rather than the model's own."""
        return self.cuts and not self._pass.true_gradient and torch.is_grad_enabled()

    def connect(self, output: Tensor, taps: Taps) -> Tensor:  # noqa: ARG002 — a rule that ties them overrides this
        """Tie the output to the activations the graph was cut at; by default they stay cut off.

        Args:
            output: of the model, where the error is taken, [*batch, C].
            taps: (point, activation) pairs in the order they ran, the activations still attached to what lies below
                them; a module that ran twice is there twice.

        Returns:
            The output, through whose backward pass the error reaches the activations.
        """
        if not torch.compiler.is_compiling() and output.grad_fn is not None:
            output.grad_fn.register_prehook(self._pass.enter_backward)
        return output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; while gradients are recorded, on the rule's graph."""
        if not self._pass.drawn:
            self._prepare(args, kwargs)
        if not self.learns:
            return self.model(*args, **kwargs)
        if self.learns_feedback or self.gathers:
            self._pass.group = group_of_pass()
        return self._run(args, kwargs)

    @contextmanager
    def backprop(self, see: Callable[[str, Any], Any] | None = None) -> Iterator[None]:
        """Within this context a forward pass builds the model's own graph: the true gradient of the same weights.

        Args:
            see: called as see(point, output) each time a point of a rule that cuts at points has run; what it returns
                goes on in the output's place.
        """
        of_pass = self._pass
        before = of_pass.true_gradient, of_pass.see
        of_pass.true_gradient, of_pass.see = True, see
        try:
            yield
        finally:
            of_pass.true_gradient, of_pass.see = before

    def unwrap(self) -> nn.Module:
        """Return the model itself, with no trace of the rule left on it."""
        for handle in self._handles:
            handle.remove()
        return self.model

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on the rule's graph."""
        model: Any = self._modules["model"]  # as an attribute, it would be looked for in three other places first
        taps = self._pass.taps = []
        try:
            output = model(*args, **kwargs)
        finally:
            self._pass.taps = None
        tapped = self.error_tap.of(output)
        if not tapped.requires_grad and all(parameter.requires_grad for parameter in self.model.parameters()):
            raise OutputError(f"the model's {problems.no_readout().words}")
        rows = self.error_tap.rows(tapped)
        tied = self.connect(rows, taps)
        if tied is rows:
            return output
        if rows is not tapped:
            tied = tied.reshape(tapped.shape)
        return tied if output is tapped else exchange(output, tapped, tied)

    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See the shapes in a first forward pass, and draw the matrices."""
        with torch.inference_mode(False):  # matrices drawn in it could never learn, nor be loaded
            args, kwargs = mapped((args, kwargs), _usable)
            found = self._trace(args, kwargs)
            self._draw(found, self._jacobians(args, kwargs) if self._probes and needs_jacobian(self.recipe) else {})

    # What a rule that is no cut at points does in another way: which modules are meant, what is hooked to each, what
    # a first forward pass must tell, and the matrices drawn from that.

    def _choose(self, model: nn.Module, points: str | Iterable[str]) -> tuple[str, ...]:
        return check_points(model, points)

    def _attach(self, name: str, module: nn.Module) -> Sequence[Handle]:
        return [after(module, _Tap(self._pass, name))]

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return trace(self.model, self.points, self.error_tap, args, kwargs)

    def _trace_from_linear_input(self) -> Any:
        """Trace a model that begins with a linear layer on one row of zeros; None where it does not take that."""
        first = next((module for module in self.model.modules() if weight_matrices(module)), None)
        inputs = getattr(first, "in_features", None)
        # Of a whole sequence or image one row says nothing.
        if first is None or not isinstance(inputs, int) or self.error_tap.batch_dims is not None:
            return None
        try:
            return self._trace((weight_matrices(first)[0].new_zeros(1, inputs),), {})
        except Exception:  # the input was a guess; the first real forward pass settles it
            return None

    def _jacobians(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        return mean_jacobians(self.model, self.points, self.error_tap, args, kwargs)

    def _draw(self, found: Any, jacobians: dict[str, Tensor]) -> None:
        """Draw the matrix of every point that has none yet; `found` is what `_trace` returned."""
        blocks: tuple[Block, ...] = found
        outputs = blocks[-1].features
        generator = torch.Generator().manual_seed(self.seed)
        widest = max(block.features for block in blocks[:-1])
        modules = dict(self.model.named_modules())
        links = [convolution_between(*pair, modules) for pair in itertools.pairwise(blocks[:-1])]
        convolutions = tuple(link for link in links if isinstance(link, Convolution))
        for block in blocks[:-1]:
            known = self.feedback.matrices.get(block.point)
            if known is None:
                place = Place(
                    block.point,
                    block.features,
                    outputs,
                    block.shape,
                    widest,
                    self.seed,
                    jacobians.get(block.point),
                    convolutions,
                )
                self.feedback.put(block.point, self._like_model(draw_at(self.recipe, place, generator)))
            elif known.shape != (block.features, outputs):
                raise FeedbackShapeError(
                    f"the feedback of point {block.point!r} has shape {tuple(known.shape)}, but the point has "
                    f"{block.features} features and the model {outputs} outputs; load a state of this model"
                )
        self.blocks = blocks
        self.points = tuple(dict.fromkeys(block.point for block in blocks[:-1]))
        self._pass.drawn = True

    def _like_model(self, matrix: Tensor) -> Tensor:
        """Return the matrix where and as the model is, and in every process that runs this pass the same."""
        like = next((p for p in self.model.parameters() if p.is_floating_point()), matrix)
        return of_first(matrix.to(device=like.device, dtype=like.dtype), group_of_pass())


class _Pass:
    """What changes from pass to pass. Kept apart since to set an attribute of an `nn.Module` takes microseconds."""

    taps: Taps | None = None
    true_gradient: bool = False
    see: Callable[[str, Any], Any] | None = None  # what sees the points under the true gradient
    drawn: bool = False  # the matrices, at the first pass
    shapes: Sequence[torch.Size] = ()  # of activations and output, found to fit the matrices
    alike: bool = False  # these shapes, in the number of their axes
    large: bool = False  # what is sent at these shapes, all of it at once
    group: Any = None  # of the processes that learn or gather together
    backward: int = -1  # autograd's number of the last backward pass through the rule's graph

    def enter_backward(self, *_: Any) -> None:
        """Note that the backward pass that now runs is one through the rule's graph."""
        if not torch.compiler.is_compiling():
            self.backward = torch._C._current_graph_task_id()

    @property
    def repeats(self) -> bool:
        """Whether activation checkpointing, in a backward pass, now runs a part of the rule's forward pass again.

        It must then save the same tensors, so the graph is cut at the same places.
        """
        if self.backward < 0 or torch.compiler.is_compiling():
            return False
        return self.backward == torch._C._current_graph_task_id()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Pass:
        other = _Pass()
        vars(other).update(vars(self))
        return other

    # Both the rule and the hooks on its model hold this, so neither is pickled by itself or in the other: what came
    # back would depend on the version of this package, and reading it could run any code.
    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ArgumentError(
            "a model wrapped in a rule cannot be pickled; save net.state_dict(), which holds the feedback too, and "
            "load it into a model wrapped anew, or pickle the bare model, net.unwrap()"
        )


class _Tap:
    """Hook of one point: cut the graph and keep the activation. An object, so that a deep copy has its own pass."""

    __slots__ = ("name", "of_pass")

    def __init__(self, of_pass: _Pass, name: str) -> None:
        self.of_pass, self.name = of_pass, name

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        taps = self.of_pass.taps
        # What requires a gradient is recorded and floating. The calls would show in a small network's step.
        if taps is not None and isinstance(output, Tensor) and output.requires_grad:
            taps.append((self.name, output))
            return output.detach()
        if taps is not None:
            check_recording(self.name)
            taps.append((self.name, activation_of(self.name, output)))
        elif not self.of_pass.repeats:
            return None if self.of_pass.see is None else self.of_pass.see(self.name, output)
        return mapped(output, Tensor.detach)


class _Matrices(nn.Module):
    """Feedback by point, or other buffers by name."""

    def __init__(self) -> None:
        super().__init__()
        # Names of buffers, by point: they must hold no dot, so there are slashes in their place.
        self.keys: dict[str, str] = {}

    @property
    def matrices(self) -> dict[str, Tensor]:
        buffers: dict[str, Any] = self._buffers
        return {point: buffers[key] for point, key in self.keys.items()}

    def of(self, points: Iterable[str]) -> list[Tensor]:
        """Return the matrices of these points; called on every forward pass, hence without making the dictionary."""
        buffers: dict[str, Any] = self._buffers
        return [buffers[self.keys[point]] for point in points]

    def beside(self, taps: Taps) -> tuple[list[Tensor], list[Tensor], list[torch.Size]]:
        """Return the matrices of all taps, their activations, and the shapes of these; called as `of` is."""
        buffers: dict[str, Any] = self._buffers
        keys = self.keys
        matrices, activations, shapes = [], [], []
        for point, activation in taps:
            matrices.append(buffers[keys[point]])
            activations.append(activation)
            shapes.append(activation.shape)
        return matrices, activations, shapes

    def put(self, point: str, matrix: Tensor) -> None:
        self.keys[point] = point.replace("/", "\\").replace(".", "/")
        self.register_buffer(self.keys[point], matrix)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Where none is drawn yet they are taken from the saved state, whatever their shapes.
        saved = {} if self.keys else {key: value for key, value in state_dict.items() if key.startswith(prefix)}
        for key, value in saved.items():
            self.put(key.removeprefix(prefix).replace("/", ".").replace("\\", "/"), torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _usable(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd may keep, also if the model was given one of inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def check_bare(model: nn.Module) -> None:
    """Raise PointsError if the model is in a rule already."""
    if isinstance(model, Rule):
        raise PointsError(f"the model is already wrapped in {type(model).__name__}; wrap model.unwrap() instead")


def check_wrapped(net: object) -> None:
    """Raise ArgumentError unless `net` is a model in a rule, and so has feedback to measure against."""
    if not isinstance(net, Rule):
        raise ArgumentError(
            f"got a {type(net).__name__}, expected a model wrapped in a rule: feedalign.DFA(model), or "
            "feedalign.Backprop(model) for one that is trained with backprop"
        )


def check_recording(name: str) -> None:
    """Raise PointsError if a point runs while gradients are off, so that no feedback could reach what is below it."""
    if not torch.is_grad_enabled():
        raise PointsError(
            f"point {name!r} ran without gradients, in torch.no_grad() or in a checkpoint with use_reentrant=True: no "
            "feedback would reach what is below it; checkpoint with use_reentrant=False, or choose points outside"
        )


def refuse_unreached() -> NoReturn:
    """Raise PointsError, since in a forward pass no point ran and the model would learn by backprop."""
    raise PointsError(
        "no point ran in this forward pass, so no feedback reaches the model: it has been unwrapped, or other modules "
        "stand at its points; wrap it again"
    )


def check_feedback(names: Iterable[str], matrices: Iterable[Tensor], shapes: Sequence[torch.Size]) -> None:
    """Raise FeedbackShapeError unless activations and output, of these shapes in this order, fit the matrices."""
    *activations, output = shapes
    batch_shape = output[:-1]
    for name, matrix, activation in zip(names, matrices, activations, strict=True):
        if (
            activation[: len(batch_shape)] != batch_shape
            or activation.numel() != batch_shape.numel() * matrix.shape[0]
            or matrix.shape[1] != output[-1]
        ):
            raise FeedbackShapeError(
                f"the feedback of point {name!r} has shape {tuple(matrix.shape)}, which does not fit the activation "
                f"{tuple(activation)} and the output {tuple(output)}; both must begin with the same batch axes; after "
                "a change of the network's shape wrap it again"
            )
