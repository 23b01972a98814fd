"""The controls that every comparison of rules needs: the true gradient, the readout alone, blocks left as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import nn

from feedalign.anatomy import Entries, Mask
from feedalign.checks import names_in
from feedalign.errors import ArgumentError
from feedalign.feedback import Feedback
from feedalign.rules.direct.rule import DirectRule


class ReadoutOnly(DirectRule):
    """Train only what lies after the last feedback point: the control that says what random hidden layers are worth.

    The gradients of the hidden layers stay None. The arguments are those of `DirectRule`; the feedback is not used to
    learn.
    """

    sends: ClassVar[bool] = False


class Backprop(DirectRule):
    """The true gradient, in the shape of a rule: the reference for every other rule.

    The arguments are those of `DirectRule`; the feedback is not used to learn, but alignment with it can be measured.
    """

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on its own graph."""
        return self.model(*args, **kwargs)


class Frozen(Backprop):
    """The true gradient, except that some blocks stay as they are: the control for rules that train those blocks badly.

    A block is what runs between one feedback point and the next, and has the name of the point that ends the block. The
    error passes *through* a frozen block, so whatever lies below still learns; `ReadoutOnly` stops the error at the
    last point instead. A rule that scores below this control has made its hidden blocks worse than random ones.

    The gradients of frozen parameters stay None, also where an unfrozen block shares them. Batch-norm statistics are no
    parameters: they are gathered in training mode as ever. Frozen blocks must not be checkpointed, and they compile
    with graph breaks only.

    The feedback is not used to learn.

    The other arguments are those of `DirectRule`.

    Args:
        blocks: the points whose blocks stay as they are. Unless given, all but the first, so that the embedding or
            first layer and the readout learn, and what is between them does not.

    Raises:
        ArgumentError: `blocks` names something that is no point of this model, or is not given and there is one point
            only, hence nothing between the first block and the readout.
    """

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
        blocks: Iterable[str] | None = None,
    ) -> None:
        super().__init__(
            model,
            points,
            feedback,
            seed,
            example_input=example_input,
            output=output,
            batch_dims=batch_dims,
            error_at=error_at,
            mask=mask,
        )
        given = (blocks,) if isinstance(blocks, str) else blocks
        self.chosen = None if given is None else names_in("blocks", given, len(self.points))
        if unknown := [name for name in self.chosen or () if name not in self.points]:
            raise ArgumentError(
                f"blocks={list(self.chosen or ())} go by the names of points; {', '.join(map(repr, unknown))} is none "
                f"of {', '.join(map(repr, self.points))}"
            )
        if self.chosen is None and len(self.points) < 2:
            raise ArgumentError(
                f"between the first block and the readout there is no block, with {self.points[0]!r} the only point; "
                f"give blocks=({self.points[0]!r},), or use ReadoutOnly"
            )

    @property
    def frozen(self) -> tuple[str, ...]:
        """Points whose blocks stay as they are."""
        return self.points[1:] if self.chosen is None else self.chosen

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on its own graph, with the parameters of the frozen blocks as constants."""
        with self._constants():
            return super().run(args, kwargs)

    @contextmanager
    def _constants(self) -> Iterator[None]:
        """Within this context the frozen parameters need no gradient, so no graph of theirs is recorded."""
        modules = dict(self.model.named_modules())
        names = {name for block in self.blocks if block.point in self.frozen for name in block.modules}
        held = {p: p.requires_grad for name in names for p in modules[name].parameters(recurse=False)}
        for parameter in held:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, before in held.items():
                parameter.requires_grad_(before)
