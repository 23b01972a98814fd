"""The controls every comparison of rules needs: the true gradient, the readout alone, blocks left as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from feedalign.errors import ArgumentError
from feedalign.feedback import Feedback
from feedalign.rules.base import Rule, Taps, refuse_unreached


class ReadoutOnly(Rule):
    """Train only what lies after the last feedback point: the control that says what random hidden layers are worth.

    The hidden layers' gradients stay None. For arguments see `Rule`; the feedback is not used to learn.
    """

    def connect(self, output: Tensor, taps: Taps) -> Tensor:
        """Leave the hidden activations cut off."""
        if not taps:
            refuse_unreached()
        return super().connect(output, taps)


class Backprop(Rule):
    """The true gradient, in the shape of a rule: the reference every other one is measured against.

    For arguments see `Rule`; the feedback is not used to learn, but alignment with it can be measured.
    """

    cuts: ClassVar[bool] = False


class Frozen(Rule):
    """The true gradient, except that some blocks stay as they are: the control for rules that train those blocks badly.

    A block is what runs between one feedback point and the next, and goes by the name of the point that ends it. The
    error passes *through* a frozen block, so whatever lies below it still learns: unlike `ReadoutOnly`, which stops the
    error at the last point. A rule that scores below this control has made its hidden blocks worse than random ones.

    Frozen parameters' gradients stay None, also where an unfrozen block shares them. Batch-norm statistics are no
    parameters: they are gathered in training mode as ever. Frozen blocks must not be checkpointed, and compile with
    graph breaks only.

    Args:
        model: see `Rule`, as for points, feedback, seed and example_input; the feedback is not used to learn.
        points: see `Rule`.
        feedback: see `Rule`.
        seed: see `Rule`.
        example_input: see `Rule`.
        blocks: the points whose blocks stay as they are; unless given, all but the first, so that the embedding or
            first layer and the readout learn and what is between them does not.
        **options: `output` and `batch_dims`, see `Rule`.

    Raises:
        ArgumentError: `blocks` names something that is no point of this model, or is not given and there is one point
            only, hence nothing between the first block and the readout.
    """

    cuts: ClassVar[bool] = False

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        blocks: Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, points, feedback, seed, example_input=example_input, **options)
        self._chosen = None if blocks is None else (blocks,) if isinstance(blocks, str) else tuple(blocks)
        unknown = [name for name in self._chosen or () if name not in self.points]
        if unknown:
            raise ArgumentError(
                f"blocks={list(self._chosen or ())} go by the names of points; {', '.join(map(repr, unknown))} is none "
                f"of {', '.join(map(repr, self.points))}"
            )
        if self._chosen is None and len(self.points) < 2:
            raise ArgumentError(
                f"between the first block and the readout there is no block, with {self.points[0]!r} the only point; "
                f"give blocks=({self.points[0]!r},), or use ReadoutOnly"
            )

    @property
    def frozen(self) -> tuple[str, ...]:
        """Points whose blocks stay as they are."""
        return self.points[1:] if self._chosen is None else self._chosen

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; while gradients are recorded, with the frozen blocks' parameters as constants."""
        if not self._pass.drawn:
            self._prepare(args, kwargs)
        with self._constants():
            return super().forward(*args, **kwargs)

    @contextmanager
    def _constants(self) -> Iterator[None]:
        """Within this context the frozen parameters need no gradient, so no graph of theirs is recorded."""
        modules = dict(self.model.named_modules())
        names = (
            {} if self._pass.true_gradient else {n for b in self.blocks if b.point in self.frozen for n in b.modules}
        )
        held = {p: p.requires_grad for name in names for p in modules[name].parameters(recurse=False)}
        for parameter in held:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, before in held.items():
                parameter.requires_grad_(before)
