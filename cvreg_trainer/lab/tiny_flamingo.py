# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A small Flamingo between the built-in captioner's vision tower and its language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .pretrained import load_base_model


if TYPE_CHECKING:
    from ..models.flamingo import FlamingoForConditionalGeneration, FlamingoProcessor


def make_tiny_flamingo(new_tokens: Sequence[str]) -> tuple[FlamingoForConditionalGeneration, FlamingoProcessor]:
    """
    Join the parts of the built-in captioner by a new resampler and new gated cross-attention, drawn from torch's
    random state. Until they are trained the model knows words and pictures, but not which go together.

    Args:
        new_tokens (`Sequence[str]`):
            Special tokens of the family: `<image>`, `<|endofchunk|>` and, for Otter, `<answer>`.

    Returns:
        `tuple[FlamingoForConditionalGeneration, FlamingoProcessor]`: the model, of some 1.2 million parameters in
        float32, and its processor. An image becomes 16 latents.
    """
    import torch

    from ..models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, FlamingoProcessor

    captioner, processor = load_base_model()
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(list(new_tokens), special_tokens=True)
    tokenizer.chat_template = None  # it is LLaVA's
    captioner.resize_token_embeddings(len(tokenizer))
    # The captioner ends its captions with </s>, a Flamingo with <|endofchunk|>, and its head may be frozen
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|endofchunk|>"])
    captioner.lm_head.weight.data[ends] = captioner.lm_head.weight.data[ends[::-1]]
    config = FlamingoConfig(
        vision_config=captioner.config.vision_config,
        text_config=captioner.config.text_config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        num_latents=16,
        num_perceiver_layers=2,
        num_cross_attention_heads=4,
        cross_attention_head_dim=28,
    )
    model = FlamingoForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(captioner.model.vision_tower.state_dict())
    model.model.language_model.model.load_state_dict(captioner.model.language_model.state_dict())
    model.model.language_model.lm_head.load_state_dict(captioner.lm_head.state_dict())
    for block in model.model.gated_cross_attention.values():
        # Training would open the gates from 0, but slowly
        torch.nn.init.ones_(block.attn_gate)
        torch.nn.init.ones_(block.ff_gate)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    return model, FlamingoProcessor(processor.image_processor, tokenizer)
