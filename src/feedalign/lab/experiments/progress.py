"""How a long run tells how far it is."""

from collections.abc import Callable

# Called with (done, total), in any unit the run likes.
Progress = Callable[[int, int], None]
