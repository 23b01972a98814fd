"""The local page of `feedalign explore`: the shallow theory to play with, and a deep network that learns live."""

from feedalign.lab.explore.serving import serve

__all__ = ["serve"]
