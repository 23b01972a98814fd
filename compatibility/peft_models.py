"""Models whose weights are frozen and that learn by the adapters of peft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
from torch import nn

from compatibility.case import Case, tokens
from compatibility.text_models import LLAMA, SHORT, SIZES, maker


def adapted(kind: str, sizes: dict[str, Any], adapter: Callable[[], Any], layers: str) -> Case:
    """Return a language model with adapters, under which `layers` stand in the model of transformers."""

    def make() -> nn.Module:
        model: nn.Module = peft.get_peft_model(maker(kind, sizes)(), adapter())
        return model

    name = f"{kind} with {adapter().peft_type.value}"
    return Case("peft", name, make, lambda: {"input_ids": tokens()}, (f"base_model.model.{layers}",), "logits")


def lora(*modules: str, **more: Any) -> Callable[[], Any]:
    """Return a function that makes LoRA of rank 2; at the usual start, half of its parameters have no gradient."""
    return lambda: peft.LoraConfig(r=2, target_modules=list(modules), init_lora_weights=False, **more)


def ia3() -> Any:
    """Return IA3, which learns factors."""
    return peft.IA3Config(target_modules=["key", "value"], feedforward_modules=[], init_ia3_weights=False)


CASES = [
    adapted("LlamaForCausalLM", LLAMA, lora("q_proj", "v_proj", lora_dropout=0.1), "model.layers"),
    adapted("GPT2LMHeadModel", SHORT, lora("c_attn", fan_in_fan_out=True), "transformer.h"),
    adapted("BertForSequenceClassification", SIZES, lora("query", "dense"), "bert.encoder.layer"),
    adapted("BertForSequenceClassification", SIZES, ia3, "bert.encoder.layer"),
]
