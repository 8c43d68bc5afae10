# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Joins a language model and a vision tower to a LLaVA with a new projector, and writes it as an ordinary folder.

Notable: the chat template is ChatML with images, and without the system prompt that SmolLM2 was tuned with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch


if TYPE_CHECKING:
    from transformers import (
        Dinov2Model,
        LlamaForCausalLM,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerBase,
    )

SIDE = 84  # pixels; 6 x 6 patches, so that a picture is 36 tokens
FEATURE_LAYER = -4  # a ridge regression on its mean patch told captions apart no worse than on later layers
IMAGE_TOKEN = "<image>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def join_parts(
    language: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tower: Dinov2Model,
    *,
    side: int = SIDE,
    seed: int = 0,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """
    A LLaVA of two pretrained parts, with a projector at random.

    Args:
        language (`~transformers.LlamaForCausalLM`):
            Language model. Its weights are copied.
        tokenizer (`~transformers.PreTrainedTokenizerBase`):
            Its tokenizer, which has to know ChatML's marks. It is changed in place.
        tower (`~transformers.Dinov2Model`):
            Vision tower. Its weights are copied.
        side (`int`, *optional*, defaults to `84`):
            Side of the square that every picture is made, in pixels: a multiple of the tower's patch.
        seed (`int`, *optional*, defaults to `0`):
            Of the projector.

    Returns:
        The model in float32 and its processor.

    Raises:
        `ValueError`: if `side` is no multiple of the patch.
    """
    from transformers import BitImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    patch = cast(int, tower.config.patch_size)
    if side < patch or side % patch:
        raise ValueError(f"side has to be a multiple of the tower's patch of {patch} pixels, but is {side}.")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side = "<|im_end|>", "<|endoftext|>", "right"
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=language.config,
        image_token_index=cast(int, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)),
        vision_feature_select_strategy="default",
        vision_feature_layer=FEATURE_LAYER,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    if len(tokenizer) > language.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    settings: Any
    for settings in (model.config, model.config.text_config, model.generation_config):
        settings.bos_token_id = tokenizer.convert_tokens_to_ids("<|im_start|>")
        settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    square = {"height": side, "width": side}
    processor = LlavaProcessor(
        image_processor=BitImageProcessorPil(size=square, do_center_crop=False, do_convert_rgb=True),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
    )
    processor.image_processor.image_mean = [0.485, 0.456, 0.406]  # what DINOv2 was trained with
    processor.image_processor.image_std = [0.229, 0.224, 0.225]
    return model.eval(), processor


def save_joined(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: str | Path) -> None:
    """Write model and processor, which [`~transformers.AutoModelForImageTextToText`] and
    [`~transformers.AutoProcessor`] load."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
