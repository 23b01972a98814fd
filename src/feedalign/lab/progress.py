"""How a long computation reports its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Called with (done, total), both counted in any unit.
Progress = Callable[[int, int], None]

# Called with the name of a computation; the context is entered while it runs, and gives what reports its progress.
Watch = Callable[[str], AbstractContextManager[Progress]]


@contextmanager
def unwatched(_name: str) -> Iterator[Progress]:
    """Report no progress: the default where a `Watch` can be given."""
    yield lambda _done, _total: None
