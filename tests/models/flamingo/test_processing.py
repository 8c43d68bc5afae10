# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""FlamingoProcessor: where pixels land, what is refused, and that it comes back from disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_flamingo import IMAGE_SIZE, tiny_processor
from tiny_models import tiny_tokenizer
from transformers import AutoProcessor, CLIPImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from cvreg_trainer.models.flamingo import FlamingoConfig, FlamingoProcessor


def picture(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), colour)


RED, GREEN, BLUE = (picture(colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def normalised(image: Image.Image) -> torch.Tensor:
    """CLIP's normalisation by hand, shape (3, H, W)."""
    pixels = (np.asarray(image) / 255 - np.array(OPENAI_CLIP_MEAN)) / np.array(OPENAI_CLIP_STD)
    return torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("images", "counts"),
    [
        ([[RED], [], [GREEN, BLUE]], [1, 0, 2]),
        ([RED, GREEN, BLUE], [1, 0, 2]),  # dealt out by the texts
        ([[RED], [GREEN], [BLUE]], [1, 1, 1]),
        ([RED, GREEN, BLUE], [1, 1, 1]),
        ([(), [RED], (GREEN, BLUE)], [0, 1, 2]),
    ],
)
def test_each_text_gets_its_images_in_order(images: list[Any], counts: list[int]) -> None:
    texts = ["<image>" * count + "describe this image" for count in counts]
    batch = tiny_processor()(images=images, text=texts, padding=True, return_tensors="pt")
    assert batch["pixel_values"].shape == (3, max(counts), 1, 3, IMAGE_SIZE, IMAGE_SIZE)
    remaining = iter((RED, GREEN, BLUE))
    for row, count in zip(batch["pixel_values"], counts, strict=True):
        for image in row[:count]:
            torch.testing.assert_close(image[0], normalised(next(remaining)))
        assert not row[count:].any()


def test_text_is_tokenised_as_it_is() -> None:
    processor = tiny_processor()
    text = "a ring <image> a small red circle <|endofchunk|>"
    batch = processor(images=RED, text=text)
    assert batch["input_ids"] == processor.tokenizer([text])["input_ids"]
    ids = batch["input_ids"][0]
    assert ids.count(processor.image_token_id) == 1 and ids.index(processor.image_token_id) == 2
    assert processor.batch_decode([ids], skip_special_tokens=True) == ["a ring a small red circle"]
    assert list(processor(text=["a ring", "a star"])) == list(processor(images=[[], []], text=["a ring", "a star"]))
    assert "pixel_values" not in processor(text="a ring")


def test_a_list_in_place_of_an_image_is_a_video() -> None:
    processor = tiny_processor()
    batch = processor(images=[[[RED, GREEN, BLUE]], [[BLUE, BLUE, RED]]], text=["<image> a", "<image> b"])
    assert batch["pixel_values"].shape == (2, 1, 3, 3, IMAGE_SIZE, IMAGE_SIZE)
    torch.testing.assert_close(batch["pixel_values"][0, 0, 1], normalised(GREEN))
    with pytest.raises(ValueError, match=r"Videos of \[1, 2\] frames"):
        processor(images=[[[RED, GREEN]], [BLUE]], text=["<image> a", "<image> b"])


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        ([[RED], []], ["a", "<image> b"], r"\[0, 1\] `<image>` tokens, but \[1, 0\] images"),
        (None, "<image> a", r"\[1\] `<image>` tokens, but \[0\] images"),
        (RED, "a ring", "1 images were passed for 0 `<image>` tokens in 1 texts"),
        ([[RED]], ["<image>", "b"], "but .1. images were passed"),
        (RED, None, "`text` is needed"),
    ],
)
def test_images_and_image_tokens_must_agree(images: Any, text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_processor()(images=images, text=text)


def test_the_tokenizer_must_know_the_image_token() -> None:
    with pytest.raises(ValueError, match="does not know '<image>'"):
        FlamingoProcessor(CLIPImageProcessorPil(), tiny_tokenizer())


def test_saving_and_loading(tmp_path: Path) -> None:
    processor = tiny_processor()
    processor.save_pretrained(tmp_path)
    FlamingoConfig().save_pretrained(tmp_path)
    for again in (AutoProcessor.from_pretrained(tmp_path), FlamingoProcessor.from_pretrained(tmp_path)):
        assert type(again) is FlamingoProcessor and again.image_token_id == processor.image_token_id
        arguments: dict[str, Any] = {"images": [[GREEN]], "text": ["<image> a ring <|endofchunk|>"]}
        mine, other = (p(**arguments, return_tensors="pt") for p in (processor, again))
        assert mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)
        decoded = again.batch_decode(mine["input_ids"], skip_special_tokens=True)
        assert decoded == ["a ring"]
