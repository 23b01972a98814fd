"""Models of torchvision with random weights: those of its list, and small ones of its classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torchvision.models as tv
from torch import nn
from torchvision.models import convnext, efficientnet, regnet, resnet

from compatibility.case import Case, image


def named(name: str, side: int, *layers: str, **sizes: Any) -> Case:
    """Return a model of torchvision's list."""
    return of_class(name, partial(tv.get_model, name, weights=None, num_classes=4, **sizes), side, *layers)


def of_class(name: str, make: Callable[[], nn.Module], side: int, *layers: str, **more: Any) -> Case:
    """Return a model that takes images."""
    return Case("torchvision", name, make, lambda: image(side), layers, **more)


def segmenting(name: str, *layers: str, side: int = 32) -> Case:
    """Return a model whose output is an image, sent as a whole."""
    make = partial(tv.get_model, name, weights=None, weights_backbone=None, num_classes=2)
    return of_class(name, make, side, *layers, output="out", batch_dims=1)


def efficient() -> nn.Module:
    """Return an EfficientNet of three stages."""
    mobile, fused = efficientnet.MBConvConfig, efficientnet.FusedMBConvConfig
    stages = [fused(1, 3, 1, 8, 8, 1), mobile(2, 3, 2, 8, 16, 1, 1.0, 1.0), mobile(2, 5, 2, 16, 16, 1, 1.0, 1.0)]
    sizes = {"dropout": 0.1, "stochastic_depth_prob": 0.2, "last_channel": 32, "num_classes": 4}
    model: nn.Module = tv.EfficientNet(stages, **sizes)
    return model


def regular() -> nn.Module:
    """Return a RegNet with attention to channels."""
    sizes = regnet.BlockParams.from_init_params(depth=4, w_0=8, w_a=8.0, w_m=2.0, group_width=4, se_ratio=0.25)
    model: nn.Module = tv.RegNet(sizes, num_classes=4, stem_width=8)
    return model


def visual() -> nn.Module:
    """Return a VGG of three convolutions with a small readout; the original readout has 100 million weights."""
    model: nn.Module = tv.VGG(tv.vgg.make_layers([8, "M", 16, "M", 16], batch_norm=True), num_classes=4)
    model.classifier = nn.Linear(16 * 7 * 7, 4)
    return model


RESIDUAL = ("layer1", "layer2", "layer3", "layer4")
STAGES = ("layer1!", "layer2!", "layer3!", "layer4!")

CASES = [
    named("resnet18", 64, *RESIDUAL),
    of_class(
        "ResNet of Bottleneck",
        lambda: tv.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 4, groups=4, width_per_group=4),
        64,
        *STAGES,
    ),
    of_class("VGG", visual, 32, "features.3!", "features.7!", "features.10!"),
    of_class(
        "DenseNet",
        lambda: tv.DenseNet(8, (2, 2, 2), 16, num_classes=4),
        64,
        "features.transition1!",
        "features.transition2!",
    ),
    named("mobilenet_v2", 64, "features", width_mult=0.25),
    named("mobilenet_v3_small", 64, "features", width_mult=0.5),
    of_class("EfficientNet", efficient, 64, "features"),
    of_class("RegNet", regular, 64, "trunk_output"),
    of_class(
        "ConvNeXt",
        lambda: tv.ConvNeXt(
            [convnext.CNBlockConfig(8, 16, 2), convnext.CNBlockConfig(16, None, 2)], 0.2, num_classes=4
        ),
        32,
        "features",
    ),
    of_class(
        "SwinTransformer",
        lambda: tv.SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0.2, num_classes=4),
        32,
        "features",
    ),
    of_class(
        "SwinTransformer v2",
        lambda: tv.SwinTransformer(
            [4, 4],
            12,
            [2, 2],
            [2, 2],
            [4, 4],
            num_classes=4,
            block=tv.swin_transformer.SwinTransformerBlockV2,
            downsample_layer=tv.swin_transformer.PatchMergingV2,
        ),
        32,
        "features",
    ),
    of_class(
        "VisionTransformer",
        lambda: tv.VisionTransformer(32, 16, 2, 2, 16, 24, dropout=0.1, num_classes=4),
        32,
        "encoder.layers",
    ),
    of_class("MaxVit", lambda: tv.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.2, num_classes=4), 32, "blocks"),
    of_class(
        "MNASNet", lambda: tv.MNASNet(0.25, num_classes=4), 64, "layers.8!", "layers.9!", "layers.10!", "layers.11!"
    ),
    of_class(
        "ShuffleNetV2",
        lambda: tv.ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 64], num_classes=4),
        64,
        "stage2",
        "stage3",
        "stage4",
    ),
    named("squeezenet1_1", 64, "features.3!", "features.4!", "features.6!", "features.7!"),
    named("googlenet", 64, "inception3a!", "inception4a!", "inception5a!", aux_logits=False, init_weights=False),
    named("inception_v3", 96, "Mixed_5b!", "Mixed_6a!", "Mixed_7a!", aux_logits=False, init_weights=False),
    segmenting("lraspp_mobilenet_v3_large", "backbone.4!", "backbone.9!", "backbone.16!"),
    segmenting("deeplabv3_mobilenet_v3_large", "backbone.4!", "backbone.9!", "backbone.16!"),
    segmenting("fcn_resnet50", "backbone.layer1!", "backbone.layer2!", "backbone.layer3!", side=16),
]
