"""Networks the experiments use: plain `nn.Module`s that know of no rule."""

from feedalign.networks.convnet import ConvNet
from feedalign.networks.ensemble import EnsembleLinear, EnsembleMLP
from feedalign.networks.mlp import MLP
from feedalign.networks.tiled import TiledConv2d
from feedalign.networks.transformer import Transformer
from feedalign.networks.unroll import UnrolledConv2d, dense, locally_connected, roll, unroll

__all__ = [
    "MLP",
    "ConvNet",
    "EnsembleLinear",
    "EnsembleMLP",
    "TiledConv2d",
    "Transformer",
    "UnrolledConv2d",
    "dense",
    "locally_connected",
    "roll",
    "unroll",
]
