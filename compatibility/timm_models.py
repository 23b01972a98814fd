"""Models of timm with random weights, at small sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
from timm.layers import GatedMlp
from timm.models import convmixer, metaformer, mlp_mixer, volo
from torch import nn

from compatibility.case import Case, image


def named(name: str, side: int, *layers: str, **sizes: Any) -> Case:
    """Return a model of timm's list."""
    return of_class(name, lambda: timm.create_model(name, num_classes=4, **sizes), side, *layers)


def of_class(name: str, make: Callable[[], nn.Module], side: int, *layers: str) -> Case:
    """Return a model that takes images."""
    return Case("timm", name, make, lambda: image(side), layers)


def mixer(**parts: Any) -> Callable[[], nn.Module]:
    """Return a function that makes a network of perceptrons over places and channels."""
    return lambda: mlp_mixer.MlpMixer(num_classes=4, img_size=32, patch_size=16, num_blocks=2, embed_dim=24, **parts)


def pooling() -> nn.Module:
    """Return a network that mixes places by pooling."""
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "num_classes": 4}
    parts: dict[str, Any] = {"token_mixers": metaformer.Pooling, "norm_layers": metaformer.GroupNorm1}
    model: nn.Module = metaformer.MetaFormer(**sizes, **parts)
    return model


def looking_out() -> nn.Module:
    """Return a network of outlook attention and attention."""
    sizes: dict[str, Any] = {"embed_dims": (24, 48, 48, 48), "num_heads": (2, 4, 4, 4), "num_classes": 4}
    first = (True, False, False, False)
    model: nn.Module = volo.VOLO((1, 1, 1, 1), img_size=64, downsamples=first, outlook_attention=first, **sizes)
    return model


SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3}
FOUR: dict[str, Any] = {"depths": (1, 1, 1, 1)}
STAGES = tuple(f"serial_blocks{i}" for i in (1, 2, 3, 4))
GATED: dict[str, Any] = {"mlp_ratio": 2, "block_layer": mlp_mixer.SpatialGatingBlock, "mlp_layer": GatedMlp}

CASES = [
    named("vit_tiny_patch16_224", 32, "blocks", img_size=32, **SMALL),
    named("deit_tiny_distilled_patch16_224", 32, "blocks", img_size=32, **SMALL),
    named("beit_base_patch16_224", 32, "blocks", img_size=32, **SMALL),
    named("eva02_tiny_patch14_224", 28, "blocks", img_size=28, **SMALL),
    named("cait_xxs24_224", 32, "blocks", "blocks_token_only", img_size=32, **SMALL),
    of_class("MlpMixer", mixer(), 32, "blocks"),
    of_class("gMLP", mixer(**GATED), 32, "blocks"),
    of_class("ResMLP", mixer(mlp_ratio=2, block_layer=mlp_mixer.ResBlock, norm_layer=mlp_mixer.Affine), 32, "blocks"),
    of_class("ConvMixer", lambda: convmixer.ConvMixer(16, 2, patch_size=4, num_classes=4), 32, "blocks"),
    named("coat_lite_tiny", 64, *STAGES, img_size=64, embed_dims=[8, 8, 16, 16], serial_depths=[1, 1, 1, 1]),
    named("pvt_v2_b0", 64, "stages", embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 2, 2), **FOUR),
    of_class("PoolFormer", pooling, 64, "stages"),
    named(
        "swin_tiny_patch4_window7_224",
        32,
        "layers",
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(2, 2),
    ),
    named("convnextv2_atto", 64, "stages", dims=(8, 8, 16, 16), **FOUR),
    named("resnetv2_50", 64, "stages", layers=(1, 1, 1, 1), channels=(32, 32, 64, 64)),
    named("levit_128s", 64, "stages", img_size=64),
    named("xcit_nano_12_p16_224", 32, "blocks", "cls_attn_blocks", img_size=32, depth=2),
    named(
        "tnt_s_patch16_224",
        32,
        "blocks",
        img_size=32,
        embed_dim=24,
        inner_dim=8,
        depth=2,
        num_heads_inner=2,
        num_heads_outer=2,
    ),
    named("edgenext_xx_small", 64, "stages", dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), heads=(2, 2, 2, 2)),
    named("ghostnet_050", 64, "blocks"),
    named("mobilevit_xxs", 64, "stages"),
    named("repvgg_a0", 64, "stages!"),
    named("davit_tiny", 64, "stages", embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 2, 2), **FOUR),
    named("fastvit_t8", 64, "stages", layers=(1, 1, 1, 1), embed_dims=(8, 16, 16, 32)),
    named("visformer_tiny", 64, "stage1", "stage2", "stage3", img_size=64, embed_dim=48, depth=(1, 1, 1)),
    of_class("VOLO", looking_out, 64, "network.0!", "network.2!"),
    named("hrnet_w18_small", 64, "stage2", "stage3", "stage4"),
    named("vgg11_bn", 32, "features.7!", "features.14!"),
    named("mnasnet_small", 64, "blocks"),
    named("lcnet_050", 64, "blocks"),
]
