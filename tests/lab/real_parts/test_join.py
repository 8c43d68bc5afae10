# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Two parts become an ordinary LLaVA folder."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_parts import tiny_parts
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from cvreg_trainer.lab.real_parts.join import join_parts, save_joined


CHAT = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A dog"}]},
]


def test_the_folder_is_loaded_as_any_other(tmp_path: Path) -> None:
    language, tokenizer, tower = tiny_parts()
    words = language(input_ids=torch.arange(9)[None]).logits
    save_joined(*join_parts(language, tokenizer, tower, side=28), tmp_path)
    model, loading = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(model, LlavaForConditionalGeneration) and isinstance(processor, LlavaProcessor)
    assert not any(loading.values())
    assert model.lm_head.weight is model.get_input_embeddings().weight
    # The parts are what they were
    torch.testing.assert_close(model(input_ids=torch.arange(9)[None]).logits[..., : words.shape[-1]], words)
    pixels = torch.rand(1, 3, 28, 28)
    torch.testing.assert_close(
        model.model.vision_tower(pixels).last_hidden_state, tower.eval()(pixels).last_hidden_state
    )


def test_the_processor_makes_room_for_the_patches_the_model_gives(tmp_path: Path) -> None:
    save_joined(*join_parts(*tiny_parts(), side=42), tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    text = processor.apply_chat_template(CHAT[:1], add_generation_prompt=True)
    batch = processor(images=Image.new("RGB", (90, 50), "red"), text=text, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 42, 42)
    assert (batch["input_ids"] == model.config.image_token_id).sum() == 9
    red = model(**batch).logits
    blue = processor(images=Image.new("RGB", (90, 50), "blue"), text=text, return_tensors="pt")
    assert not torch.allclose(red, model(**blue).logits)
    out = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert out.shape[1] <= batch["input_ids"].shape[1] + 3


def test_the_chat_template_writes_chatml() -> None:
    _, processor = join_parts(*tiny_parts(), side=28)
    assert processor.apply_chat_template(CHAT) == (
        "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\nA dog<|im_end|>\n"
    )
    plain = [{"role": "user", "content": "What?"}]
    assert processor.apply_chat_template(plain, add_generation_prompt=True) == (
        "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_side_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the tower's patch of 14 pixels, but is 80"):
        join_parts(*tiny_parts(), side=80)
