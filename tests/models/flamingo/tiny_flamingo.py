# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Tiny random Flamingos over every kind of language model, with a processor for the rows of `vision_rows`."""

from typing import Any

import torch
from tiny_models import Tiny, tiny_tokenizer
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MptConfig,
    OPTConfig,
    PreTrainedConfig,
    set_seed,
)

from cvreg_trainer.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, FlamingoProcessor


IMAGE_SIZE = 8
LANGUAGE_MODELS = ("llama", "mpt", "mpt_1b", "gpt_neox", "opt")


def tiny_processor() -> FlamingoProcessor:
    """A processor whose tokenizer knows OpenFlamingo's tokens; `<image>` is the last but one."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|endofchunk|>", "<image>", "<answer>"], special_tokens=True)
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return FlamingoProcessor(CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=side), tokenizer)


def text_config(kind: str, vocab_size: int, width: int) -> PreTrainedConfig:
    """Configuration of a language model of 4 layers, whose predictions are far from uniform."""
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": vocab_size}
    if kind.startswith("mpt"):
        sizes = {"d_model": width, "n_heads": 2, "n_layers": 4, "max_seq_len": 128}
        return MptConfig(**ids, **sizes, attn_config={"qk_ln": kind == "mpt_1b"}, initializer_range=0.2)
    sizes = {"hidden_size": width, "num_hidden_layers": 4, "num_attention_heads": 2, "max_position_embeddings": 128}
    if kind == "opt":
        return OPTConfig(**ids, **sizes, ffn_dim=2 * width, word_embed_proj_dim=width, dropout=0.0, init_std=0.2)
    sizes["intermediate_size"] = 2 * width
    if kind == "gpt_neox":
        return GPTNeoXConfig(**ids, **sizes, initializer_range=0.2, use_parallel_residual=False)
    return LlamaConfig(**ids, **sizes, initializer_range=0.2)


def tiny_flamingo(kind: str = "llama", width: int = 16, seed: int = 0, **options: Any) -> Tiny:
    """
    Flamingo with gates half open, gated blocks before layers 1 and 3 and 4 latents an image.

    A model that bitsandbytes is to load in 4 bits needs `width=64`.
    """
    set_seed(seed)
    processor = tiny_processor()
    vision_config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=4,
        initializer_range=0.2,
    )
    sizes = {
        "num_latents": 4,
        "num_perceiver_layers": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
    }
    if width == 64:
        sizes |= {"num_cross_attention_heads": 2, "cross_attention_head_dim": 32}
    config = FlamingoConfig(
        vision_config=vision_config,
        text_config=text_config(kind, len(processor.tokenizer), width),
        cross_attn_every_n_layers=2,
        image_token_id=processor.image_token_id,
        **{**sizes, **options},
    )
    model = FlamingoForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("attn_gate", "ff_gate")):
            torch.nn.init.constant_(parameter, 0.7)
        elif name.startswith(("model.perceiver", "model.gated")) and parameter.ndim == 2:
            # Not all language models name the range from which these would be drawn
            torch.nn.init.normal_(parameter, std=0.2)
    return Tiny(model.eval(), processor)
