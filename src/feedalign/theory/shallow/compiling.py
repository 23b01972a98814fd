"""How the loops of the shallow theory are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Compiled = TypeVar("Compiled", bound=Callable[..., Any])


def compiled(function: Compiled) -> Compiled:
    """Compile with numba, cached on disk, without the interpreter lock so that seeds can run in threads."""
    # Sums may be reordered and fused, which makes a simulated step 5 % shorter; NaN and infinity keep their meaning.
    reordering = {"contract", "nsz", "arcp", "reassoc"}
    return cast(Compiled, njit(cache=True, nogil=True, error_model="numpy", fastmath=reordering)(function))
