"""Models of transformers for images, sound and both, each with few tiny layers of random weights."""

from __future__ import annotations

from typing import Any

from compatibility.case import Case, image, signal, tokens
from compatibility.text_models import HALVES, maker

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 8,
    "num_labels": 4,
}


def picture(
    kind: str, sizes: dict[str, Any], *layers: str, side: int = 16, output: str = "logits", **more: Any
) -> Case:
    """Return a model that takes images."""
    return Case("transformers", kind, maker(kind, sizes), lambda: {"pixel_values": image(side)}, layers, output, **more)


CASES = [
    picture("ViTForImageClassification", SMALL, "vit.layers"),
    picture("DeiTForImageClassification", SMALL, "deit.layers"),
    picture("BeitForImageClassification", SMALL, "beit.layers"),
    picture("Dinov2ForImageClassification", dict(**SMALL, mlp_ratio=2), "dinov2.encoder.layer"),
    picture(
        "CLIPVisionModelWithProjection",
        dict(**SMALL, projection_dim=8),
        "vision_model.encoder.layers",
        output="image_embeds",
    ),
    picture(
        "SiglipForImageClassification",
        {
            "vision_config": SMALL,
            "text_config": {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "vocab_size": 40,
            },
            "num_labels": 4,
        },
        "vision_model.encoder.layers",
    ),
    picture(
        "ConvNextForImageClassification",
        {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 2], "num_labels": 4},
        "convnext.encoder.stages",
        side=32,
    ),
    picture(
        "ConvNextV2ForImageClassification",
        {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 2], "num_labels": 4},
        "convnextv2.encoder.stages",
        side=32,
    ),
    picture(
        "SwinForImageClassification",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [2, 2],
            "window_size": 4,
            "num_labels": 4,
        },
        "swin.encoder.layers",
        side=32,
    ),
    picture(
        "Swinv2ForImageClassification",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [2, 2],
            "window_size": 4,
            "num_labels": 4,
        },
        "swinv2.encoder.layers",
        side=32,
    ),
    picture(
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "num_labels": 4, "layer_type": "basic"},
        "resnet.encoder.stages",
        side=32,
    ),
    picture(
        "RegNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "groups_width": 4, "num_labels": 4},
        "regnet.encoder.stages",
        side=32,
    ),
    picture(
        "PoolFormerForImageClassification",
        {
            "hidden_sizes": [8, 16],
            "depths": [1, 1],
            "num_encoder_blocks": 2,
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "padding": [2, 1],
            "num_labels": 4,
        },
        "poolformer.encoder.block.0",
        "poolformer.encoder.block.1",
        side=32,
    ),
    picture(
        "SegformerForSemanticSegmentation",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 16],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 16,
            "num_labels": 4,
        },
        "segformer.stages",
        side=32,
        batch_dims=1,
    ),
    picture(
        "MobileViTForImageClassification",
        {
            "image_size": 32,
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 16],
            "num_attention_heads": 2,
            # At the usual 0.02 the batch norms enlarge what random feedback sends, until float32 overflows.
            "initializer_range": 0.2,
            "num_labels": 4,
        },
        "mobilevit.encoder.layer",
        side=64,
    ),
    picture(
        "DetrForObjectDetection",
        {
            "use_timm_backbone": False,
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage4"],
            },
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_queries": 5,
            "num_labels": 4,
        },
        "model.encoder.layers",
        "model.decoder.layers",
        side=64,
        batch_dims=1,
    ),
    Case(
        "transformers",
        "WhisperForConditionalGeneration",
        maker(
            "WhisperForConditionalGeneration",
            dict(**HALVES, num_mel_bins=8, max_source_positions=12, max_target_positions=16),
        ),
        lambda: {"input_features": signal(3, 8, 24), "decoder_input_ids": tokens(5)},
        ("model.encoder.layers", "model.decoder.layers"),
        "logits",
        1,
    ),
    Case(
        "transformers",
        "Wav2Vec2ForCTC",
        maker(
            "Wav2Vec2ForCTC",
            {
                "vocab_size": 12,
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "conv_dim": [8, 8],
                "conv_stride": [4, 4],
                "conv_kernel": [8, 8],
                "num_conv_pos_embeddings": 4,
                "num_conv_pos_embedding_groups": 2,
                "mask_time_prob": 0.0,
            },
        ),
        lambda: {"input_values": signal(3, 400)},
        ("wav2vec2.encoder.layers",),
        "logits",
    ),
    Case(
        "transformers",
        "HubertForSequenceClassification",
        maker(
            "HubertForSequenceClassification",
            {
                "vocab_size": 12,
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "conv_dim": [8, 8],
                "conv_stride": [4, 4],
                "conv_kernel": [8, 8],
                "num_conv_pos_embeddings": 4,
                "num_conv_pos_embedding_groups": 2,
                "mask_time_prob": 0.0,
                "classifier_proj_size": 8,
                "num_labels": 4,
            },
        ),
        lambda: {"input_values": signal(3, 400)},
        ("hubert.encoder.layers",),
        "logits",
    ),
    Case(
        "transformers",
        "ASTForAudioClassification",
        maker(
            "ASTForAudioClassification",
            {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "patch_size": 4,
                "frequency_stride": 4,
                "time_stride": 4,
                "max_length": 12,
                "num_mel_bins": 8,
                "num_labels": 4,
            },
        ),
        lambda: {"input_values": signal(3, 12, 8)},
        ("audio_spectrogram_transformer.layers",),
        "logits",
    ),
    Case(
        "transformers",
        "CLIPModel",
        maker(
            "CLIPModel",
            {
                "projection_dim": 8,
                "vision_config": SMALL,
                "text_config": {
                    "vocab_size": 40,
                    "hidden_size": 16,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "intermediate_size": 24,
                    "max_position_embeddings": 8,
                    "eos_token_id": 2,
                },
            },
        ),
        lambda: {"input_ids": tokens(), "pixel_values": image(16)},
        ("vision_model.encoder.layers", "text_model.encoder.layers"),
        "logits_per_image",
        1,
    ),
]
