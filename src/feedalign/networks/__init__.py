"""Networks the experiments use: plain `nn.Module`s that know of no rule."""

from feedalign.networks.ensemble import EnsembleMLP
from feedalign.networks.mlp import MLP

__all__ = ["MLP", "EnsembleMLP"]
