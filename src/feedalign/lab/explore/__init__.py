"""The local page of `feedalign explore`: the shallow theory to play with, and a deep network that learns live."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from feedalign.lab.explore.serving import serve

__all__ = ["serve"]

# The command line reads the command's arguments before it knows whether a page is wanted.
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"serving": ["serve"]})
