"""The exceptions feedalign raises: one family, each also the builtin a caller would expect to catch."""

from __future__ import annotations

from functools import partial
from typing import Any


class FeedalignError(Exception):
    """Root of the family: `except FeedalignError` catches every error that is about how feedalign was used."""


class ArgumentError(FeedalignError, ValueError):
    """An argument has the wrong value or shape; the message says what was got, what was expected, what to do."""


class PointsError(FeedalignError, ValueError):
    """The feedback points do not fit the model: unknown, repeated, never run, or none found."""


class FeedbackShapeError(FeedalignError, ValueError):
    """Error, hidden activation and feedback matrix disagree in shape."""


class OutputError(FeedalignError, TypeError):
    """The model's output cannot carry an error signal."""


class _StoppedError(FeedalignError):
    """A trajectory ended early, at a time and in a state."""

    def __init__(self, message: str, *, time: float, state: object) -> None:
        super().__init__(message)
        self.time = time
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep time and state on the way from one process to another."""
        return partial(type(self), time=self.time, state=self.state), self.args, self.__dict__


class DivergenceError(_StoppedError, ArithmeticError):
    """A trajectory left the finite numbers.

    Attributes:
        time: when that happened.
        state: the last finite state before it.
    """


class TimeLimitError(_StoppedError, TimeoutError):
    """A calculation took longer than the user allowed.

    Attributes:
        time: how far the trajectory had come, in the trajectory's own unit of time.
        state: the state at that time; None where several simulated runs were under way.
    """


class DataError(FeedalignError, OSError):
    """A data set is missing, truncated or altered, or no source of it can be reached."""


class MissingExtraError(FeedalignError, ImportError):
    """A package is missing that only an extra of feedalign installs; the message has the command that installs it.

    Attributes:
        name: the missing package, as it is imported.
    """
