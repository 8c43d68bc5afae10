# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The parts of the captioner of pretrained parts at a toy's size, with random weights, and joined."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from cvreg_trainer.lab.real_parts.join import join_parts


MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tiny_chat_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, and ChatML's marks."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    return tokenizer


def tiny_parts() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, Dinov2Model]:
    """Language model, tokenizer and vision tower."""
    torch.manual_seed(0)
    tokenizer = tiny_chat_tokenizer()
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    vision = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    return LlamaForCausalLM(language), tokenizer, Dinov2Model(vision)


def tiny_joined() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Both as a LLaVA for pictures of 28 pixels, which are four tokens."""
    return join_parts(*tiny_parts(), side=28)
