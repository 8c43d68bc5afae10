# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the frozen tower sees of each picture, computed once and kept.

Notable: a step of training needs nothing else of a picture, and the tower is a third of a step's cost. The second copy
is of the picture moved, resized, mirrored and lit otherwise, so that one picture does not always look the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image as PILImage
from PIL import ImageEnhance, ImageOps
from safetensors.torch import load_file, save_file

from ...data.pictures import Picture


if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

BATCH = 64
MIRRORED_BADLY = ("flag", "arrow", "left", "right", "letter", "sign", "button", "clock")


@torch.inference_mode()
def tower_features(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, images: Sequence[PILImage.Image]
) -> torch.Tensor:
    """
    The patches' features that the model's projector is given.

    Args:
        model (`~transformers.LlavaForConditionalGeneration`):
            Model; only its vision tower runs, in bfloat16.
        processor (`~transformers.LlavaProcessor`):
            Its processor.
        images (`Sequence[PIL.Image.Image]`):
            Pictures in RGB.

    Returns:
        `torch.Tensor` of shape `(N, P, D)` and dtype bfloat16.
    """
    parts = []
    for start in range(0, len(images), BATCH):
        pixels = processor.image_processor(images[start : start + BATCH], return_tensors="pt")["pixel_values"]
        with torch.autocast("cpu", torch.bfloat16):
            states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        parts.append(states[model.config.vision_feature_layer][:, 1:].bfloat16())
    return torch.cat(parts)


def cached_features(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pictures: Sequence[Picture],
    file: str | Path,
    *,
    copies: int = 2,
) -> torch.Tensor:
    """
    Features of the pictures, from the file if it holds those of the same pictures.

    Args:
        model (`~transformers.LlavaForConditionalGeneration`), processor (`~transformers.LlavaProcessor`):
            As for [`tower_features`].
        pictures (`Sequence[Picture]`):
            The pictures.
        file (`str` or `Path`):
            A safetensors file, written if it is not there or of other pictures.
        copies (`int`, *optional*, defaults to `2`):
            The picture as it is, and `copies - 1` changed ones.

    Returns:
        `torch.Tensor` of shape `(copies, N, P, D)` and dtype bfloat16.
    """
    file = Path(file)
    names = f"{copies} {processor.image_processor.size} {[(picture.source, picture.key) for picture in pictures]}"
    digest = torch.tensor(list(hashlib.sha256(names.encode()).digest()), dtype=torch.uint8)
    if file.is_file():
        kept = load_file(file)
        if torch.equal(kept["digest"], digest):
            return kept["features"]
    parts = []
    for start in range(0, len(pictures), BATCH):
        some = pictures[start : start + BATCH]
        images = [picture.open() for picture in some]
        versions = [images]
        for copy in range(1, copies):
            versions.append(
                [changed(i, p, random.Random(f"{copy} {p.key}")) for i, p in zip(images, some, strict=True)]
            )
        parts.append(torch.stack([tower_features(model, processor, version) for version in versions]))
    features = torch.cat(parts, dim=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"features": features.contiguous(), "digest": digest}, file)
    return features


def changed(image: PILImage.Image, picture: Picture, rng: random.Random) -> PILImage.Image:
    """The picture in a wider frame or cut by up to a tenth, mirrored where that changes no meaning, lit otherwise."""
    if rng.random() < 0.5 and not any(word in picture.caption.lower() for word in MIRRORED_BADLY):
        image = ImageOps.mirror(image)
    width, height = image.size
    if rng.random() < 0.5:
        border = tuple(rng.randint(0, max(width, height) // 5) for _ in range(4))
        image = ImageOps.expand(image, border, cast(tuple[int, ...], image.getpixel((0, 0))))
    else:
        left, top = rng.randint(0, width // 10), rng.randint(0, height // 10)
        image = image.crop((left, top, width - rng.randint(0, width // 10), height - rng.randint(0, height // 10)))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
    return ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.2))
