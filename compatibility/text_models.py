"""Language models of transformers, each with two tiny layers of random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

import feedalign as fa
from compatibility.case import Case, tokens

transformers.logging.set_verbosity_error()
fa.register_linear_layer(Conv1D, transposed=True)  # as a user does for GPT-2

# The usual names of the sizes; each configuration takes those that it knows.
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "num_labels": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHORT: dict[str, Any] = {
    "vocab_size": 40,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HALVES: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
LLAMA: dict[str, Any] = dict(**SIZES, num_key_value_heads=1, head_dim=8)


def maker(kind: str, sizes: dict[str, Any]) -> Callable[[], nn.Module]:
    """Return a function that makes a model of this class."""

    def make() -> nn.Module:
        of_kind = getattr(transformers, kind)
        model: nn.Module = of_kind(of_kind.config_class(**sizes))
        return model

    return make


def one(kind: str, sizes: dict[str, Any], *layers: str, **more: Any) -> Case:
    """Return a model that takes tokens."""
    return Case("transformers", kind, maker(kind, sizes), lambda: {"input_ids": tokens()}, layers, "logits", **more)


def two(kind: str, sizes: dict[str, Any], *layers: str) -> Case:
    """Return a model with encoder and decoder, whose sequences have different lengths."""

    def inputs() -> Any:
        return {"input_ids": tokens(6), "decoder_input_ids": tokens(5)}

    return Case("transformers", kind, maker(kind, sizes), inputs, layers, "logits", 1)


CASES = [
    one("BertForSequenceClassification", SIZES, "bert.encoder.layer"),
    one("BertForMaskedLM", SIZES, "bert.encoder.layer"),
    one("RobertaForTokenClassification", SIZES, "roberta.encoder.layer"),
    one(
        "DistilBertForSequenceClassification",
        {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        "distilbert.transformer.layer",
    ),
    one(
        "AlbertForSequenceClassification",
        dict(**SIZES, embedding_size=8),
        "albert.encoder.albert_layer_groups.0.albert_layers",
    ),
    one("ElectraForTokenClassification", dict(**SIZES, embedding_size=8), "electra.encoder.layer"),
    one(
        "DebertaForSequenceClassification",
        dict(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"]),
        "deberta.encoder.layer",
    ),
    one(
        "DebertaV2ForSequenceClassification",
        dict(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"]),
        "deberta.encoder.layer",
    ),
    one("FNetForSequenceClassification", SIZES, "fnet.encoder.layer"),
    one(
        "XLNetLMHeadModel",
        {"vocab_size": 40, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
        "transformer.layer",
    ),
    one("LongformerForSequenceClassification", dict(**SIZES, attention_window=4), "longformer.encoder.layer"),
    one("ModernBertForSequenceClassification", dict(**SIZES, cls_token_id=1, sep_token_id=2), "model.layers"),
    one("GPT2LMHeadModel", SHORT, "transformer.h"),
    one(
        "GPTNeoForCausalLM",
        {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "transformer.h",
    ),
    one("GPTJForCausalLM", dict(**SHORT, rotary_dim=4), "transformer.h"),
    one("GPTNeoXForCausalLM", SIZES, "gpt_neox.layers"),
    one(
        "BloomForCausalLM",
        {"vocab_size": 40, "hidden_size": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2},
        "transformer.h",
    ),
    one(
        "OPTForCausalLM",
        dict(**{k: v for k, v in SIZES.items() if k != "intermediate_size"}, ffn_dim=24, word_embed_proj_dim=16),
        "model.decoder.layers",
    ),
    one("FalconForCausalLM", SIZES, "transformer.h"),
    one("LlamaForCausalLM", LLAMA, "model.layers"),
    one("MistralForCausalLM", LLAMA, "model.layers"),
    one(
        "MixtralForCausalLM",
        dict(**LLAMA, num_local_experts=4, num_experts_per_tok=2, experts_implementation="eager"),
        "model.layers",
    ),
    one("Qwen2ForCausalLM", LLAMA, "model.layers"),
    one("Qwen3ForCausalLM", LLAMA, "model.layers"),
    one("GemmaForCausalLM", LLAMA, "model.layers"),
    one("Gemma2ForCausalLM", LLAMA, "model.layers"),
    one("PhiForCausalLM", SIZES, "model.layers"),
    one("Phi3ForCausalLM", dict(**SIZES, num_key_value_heads=1), "model.layers"),
    one("CohereForCausalLM", dict(**SIZES, num_key_value_heads=1), "model.layers"),
    one("StableLmForCausalLM", dict(**SIZES, num_key_value_heads=1), "model.layers"),
    one("OlmoForCausalLM", dict(**SIZES, num_key_value_heads=1), "model.layers"),
    one(
        "MambaForCausalLM",
        {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 2},
        "backbone.layers",
    ),
    one(
        "Mamba2ForCausalLM",
        {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 4,
        },
        "backbone.layers",
    ),
    one(
        "RwkvForCausalLM",
        {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "attention_hidden_size": 16,
            "intermediate_size": 24,
            "context_length": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "rwkv.blocks",
    ),
    one(
        "RecurrentGemmaForCausalLM",
        dict(**SIZES, lru_width=16, head_dim=8, num_key_value_heads=1, attention_window_size=8, use_cache=False),
        "model.layers",
    ),
    two(
        "T5ForConditionalGeneration",
        {
            "vocab_size": 40,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 24,
            "num_layers": 2,
            "num_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        "encoder.block",
        "decoder.block",
    ),
    two("BartForConditionalGeneration", HALVES, "model.encoder.layers", "model.decoder.layers"),
    two("MarianMTModel", HALVES, "model.encoder.layers", "model.decoder.layers"),
    two("PegasusForConditionalGeneration", HALVES, "model.encoder.layers", "model.decoder.layers"),
]
