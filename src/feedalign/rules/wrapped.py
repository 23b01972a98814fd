"""A model in a rule: what all rules share, and nothing else."""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, distributed, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from feedalign.anatomy import ErrorTap, recordable, weight_matrices
from feedalign.checks import instance_of
from feedalign.errors import ArgumentError, PointsError
from feedalign.feedback import Automatic, Feedback, needs_jacobian
from feedalign.rules import saving
from feedalign.rules.accounting import check_not_recorded, check_not_scripted, forget_compiled_code, transformed
from feedalign.rules.distributed import Processes, group_of_shards, reshard, sharded_modules
from feedalign.rules.matrices import Matrices
from feedalign.rules.signature import with_signature
from feedalign.rules.slot import Seeing, Slot
from feedalign.torch_private import data_parallel_group


class Wrapped(saving.NotPickled, nn.Module, ABC):
    """A model whose `loss.backward()` computes a learning rule's update; the training loop stays as it is.

    A family of rules (`DirectRule`, `SequentialRule`) says which modules it hooks, what it must know of the model
    (`look`), which matrices it draws (`draw`), and how a forward pass runs on the rule's graph (`run`).

    Args:
        model: any module. The rule uses this module itself, not a copy of it.
        feedback: recipe of the feedback matrices; `feedback.Automatic` unless given.
        seed: seed of the feedback. The feedback has a generator of its own.
        error_tap: where in the model's output the error is taken.

    Attributes:
        feedback: recipe, seed and matrices.
        drawn: whether the matrices are drawn.
        rule: the class of the rule. The object's own class is a subclass, whose forward has the model's signature.
        points: names of the modules that the rule hooks.
        hooked: these modules, by name.
        begun: whether there has been a learning pass.
        shards: the processes among which `fully_shard` has sharded the model; None if they need not be known.
        agreed: whether the processes that train this model together have the same matrices.

    Raises:
        PointsError: the model is wrapped already.
        ArgumentError: `model` is no module, or `feedback` is no recipe.
    """

    learns_feedback: ClassVar[bool] = False
    gathers: ClassVar[bool] = False  # from the error of every backward pass
    holds_in_full: ClassVar[bool] = False  # every matrix with all its entries
    rule: ClassVar[type[Wrapped]]

    def __init__(self, model: nn.Module, feedback: Feedback | None, seed: int, error_tap: ErrorTap) -> None:
        check_bare(model)
        forget_compiled_code(model)
        super().__init__()
        self.model = model
        self.error_tap = error_tap
        self.feedback = Matrices(Automatic() if feedback is None else feedback, seed, in_full=self.holds_in_full)
        self.drawn = self.begun = self.agreed = self.unwrapped = False
        self.shards: distributed.ProcessGroup | None = None
        self.slot = Slot()
        self.points: tuple[str, ...] = ()
        self.hooked: dict[str, nn.Module] = {}
        self.handles: list[RemovableHandle] = []
        self.copies: list[weakref.ref[Wrapped]] = []  # made before the matrices were drawn
        self.register_state_dict_pre_hook(saving.settle)  # type: ignore[no-untyped-call]
        self.register_state_dict_post_hook(saving.part_tied)  # type: ignore[no-untyped-call]
        self.__class__ = with_signature(type(self), type(model))  # type: ignore[arg-type]

    @abstractmethod
    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model once on these inputs, and return what `draw` must know of it."""

    @abstractmethod
    def draw(self, found: Any) -> None:
        """Draw the matrices from what `look` found, and set `drawn`."""

    @abstractmethod
    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on the rule's graph and return its output."""

    @property
    def needs_data(self) -> bool:
        """Whether the matrices depend on more than the shapes of a first input."""
        return False

    @property
    def feedback_matrices(self) -> dict[str, Tensor]:
        """F_l, [features, outputs], by point, in the order in which the points run.

        A matrix of which fewer numbers are held than it has entries (`feedback.Shared`, `Channelwise`, `Tokenwise`,
        `Sketched`) is made by this call. All other matrices are the buffers of the rule.

        Raises:
            PointsError: the matrices are not drawn yet, since no forward pass has shown their shapes.
        """
        self.feedback.check_drawn()
        self.settle()
        return self.feedback.by_point()

    def reset_feedback(self) -> None:
        """Draw the feedback anew, as its recipe and its seed say, and forget what the rule has learned since.

        The matrices are then those that a newly wrapped model has. Call this to begin a run again in the same object,
        or where the memory of the matrices was emptied unseen: a model that was moved to the meta device, and then
        filled by `to_empty` of a module around it. A model that was *built* on the meta device needs no call: its
        feedback is drawn at the first pass after `to_empty`. A recipe that looks at data draws at the next pass.

        Raises:
            PointsError: the matrices are not drawn yet.
        """
        self.feedback.check_drawn()
        self.settle()
        self.agreed = False
        self.feedback.forget()
        if needs_jacobian(self.feedback.recipe):
            self.drawn = False
        else:
            self.feedback.draw(self.feedback.places, self.model)

    def settle(self) -> None:
        """Draw the feedback that was drawn for the meta device, if the model has left that device."""
        if self.feedback.unset and not any(parameter.is_meta for parameter in self.model.parameters()):
            self.feedback.unset = False
            self.reset_feedback()

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Move to another device without the numbers, as for every module. The feedback is drawn anew when needed."""
        super().to_empty(device=device, recurse=recurse)
        self.feedback.unset = self.drawn
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; while gradients are recorded, run it on the rule's graph."""
        if not self.drawn:
            self.prepare(args, kwargs)
        elif self.feedback.unset:
            self.settle()
        if self.slot.backprop is None:
            if not torch.is_grad_enabled():
                return self.model(*args, **kwargs)
            check_not_recorded(self, (*args, *kwargs.values()))
            if not self.begun and not torch.compiler.is_compiling():
                self.begin()
            self.agree()
            try:
                return self.run(args, kwargs)
            except RuntimeError as error:
                if "functorch transforms" in str(error):
                    raise transformed(self) from error
                raise
        return self.run_under(self.slot.backprop, args, kwargs)

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Draw the matrices, also in inference mode: Tensors made in that mode could never learn, nor be loaded."""
        with torch.inference_mode(False):
            try:
                found = self.look(*recordable((args, kwargs)))
            finally:
                reshard(self.model)
            self.draw(found)
            for copy_of_it in filter(None, (each() for each in self.copies)):
                if not copy_of_it.drawn:
                    copy_of_it.draw(found)

    def prepare_early(self, example_input: Any) -> None:
        """Draw the matrices before any forward pass, if an example or the model's first layer shows the shapes."""
        if example_input is not None:
            self.prepare(example_input if isinstance(example_input, tuple) else (example_input,), {})
        elif (found := self._look_at_one_row()) is not None:
            self.draw(found)

    def _look_at_one_row(self) -> Any:
        """Return what one row of numbers shows of a model that begins with a linear layer; None if that fails."""
        first = next((module for module in self.model.modules() if weight_matrices(module)), None)
        inputs = getattr(first, "in_features", None)
        # One row says nothing about the shape of a whole sequence or image.
        if first is None or not isinstance(inputs, int) or self.needs_data or self.error_tap.batch_dims is not None:
            return None
        if any(is_lazy(parameter) for parameter in self.model.parameters()):  # its shapes would be those of the guess
            return None
        # A guess that fails within a sharded model would leave the model as it is in the middle of a pass.
        if sharded_modules(self.model):
            return None
        try:
            weight = weight_matrices(first)[0]
            row = torch.linspace(-1, 1, inputs, dtype=weight.dtype, device=weight.device)  # zeros would hide products
            return self.look((row.unsqueeze(0),), {})
        except Exception:  # the row was a guess; the first forward pass will tell
            return None

    def run_under(self, one_pass: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model while the hooks on it see this pass."""
        slot, handles = self.slot, self.watch()
        slot.running = one_pass
        try:
            return self.model(*args, **kwargs)
        finally:
            slot.running = None
            for handle in handles:
                handle.remove()

    def watch(self) -> Sequence[RemovableHandle]:
        """Set hooks that one pass needs beside those that are always there, and return their handles."""
        return ()

    def begin(self) -> None:
        """Before the first learning pass, find out whether the model is sharded.

        Raises:
            ArgumentError: `fully_shard` was given the wrapped net itself, or a mesh of several dimensions where the
                processes must be known.
        """
        shards = sharded_modules(self)
        if self in shards:
            raise ArgumentError(
                "fully_shard was given the wrapped net, whose parameters are those of the model inside; call "
                "fully_shard(net.model)"
            )
        if shards and (self.learns_feedback or self.gathers or self.needs_data or needs_jacobian(self.feedback.recipe)):
            self.shards = group_of_shards(self.model)
        self.begun = True

    def agree(self) -> None:
        """In the first learning pass of several processes, take the matrices of the first process.

        They differ where a recipe looks at data. An earlier pass is no place for this: one process may run alone then.
        """
        group = data_parallel_group() or self.shards
        if group is not None and not self.agreed:
            for matrix in self.feedback.buffers():
                matrix.copy_(Processes(group).from_first(matrix.clone()))
            self.agreed = True

    @contextmanager
    def backprop(self, see: Callable[[str, Any], Any] | None = None) -> Iterator[None]:
        """Within this context a forward pass builds the model's own graph: the true gradient of the same weights.

        Args:
            see: called as see(point, output) each time a feedback point has run, where a learning pass would cut the
                graph. What `see` returns, unless None, goes on in the output's place. Sequential rules call it never.
        """
        before, self.slot.backprop = self.slot.backprop, Seeing(see)
        try:
            yield
        finally:
            self.slot.backprop = before

    def __getattr__(self, name: str) -> Any:
        """Return what the wrapper does not have from the model: `config`, `generate`, switches of trainers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that shares nothing. If no matrix is drawn yet, the copy gets its own when this net does."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        vars(other).update(copy.deepcopy({name: value for name, value in vars(self).items() if name != "copies"}, memo))
        other.copies = []
        if not self.drawn:
            self.copies.append(weakref.ref(other))
        return other

    def unwrap(self) -> nn.Module:
        """Return the model itself, with no trace of the rule left on it."""
        for handle in self.handles:
            handle.remove()
        self.unwrapped = True
        return self.model


def check_bare(model: nn.Module) -> None:
    """Raise ArgumentError if the model is no module that runs hooks, and PointsError if it is in a rule already."""
    instance_of("model", model, nn.Module, advice="give the network itself, not its class or its name")
    check_not_scripted(model)
    if isinstance(model, Wrapped):
        raise PointsError(f"the model is already wrapped in {type(model).__name__}; wrap model.unwrap() instead")


def check_wrapped(net: object) -> None:
    """Raise ArgumentError unless `net` is a model in a rule, and so has feedback to measure against."""
    if not isinstance(net, Wrapped):
        raise ArgumentError(
            f"got a {type(net).__name__}, expected a model wrapped in a rule: feedalign.DFA(model), or "
            "feedalign.Backprop(model) for one that is trained with backprop"
        )
