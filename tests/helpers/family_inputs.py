# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a user without the family's processor writes: a collate function from PIL rows to the model's inputs.

Notable: every image is resized to one size, and how many tokens stand for it is asked of the model itself once.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from family_configs import IMAGE_SIZE, PATCH_SIZE
from PIL import Image
from transformers import PreTrainedModel


Pixels = Callable[[list[Image.Image]], dict[str, Any]]


def to_tensor(image: Image.Image) -> torch.Tensor:  # (3, IMAGE_SIZE, IMAGE_SIZE)
    pixels = np.asarray(image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE)), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


def stacked(lead: int = 0, **extra: Callable[[int], torch.Tensor]) -> Pixels:
    """
    Makes `pixel_values` of shape (images, *lead dimensions of 1, 3, IMAGE_SIZE, IMAGE_SIZE), and what `extra` makes
    for a number of images.
    """

    def pixels(images: list[Image.Image]) -> dict[str, Any]:
        values = torch.stack([to_tensor(image) for image in images])
        for _ in range(lead):
            values = values[:, None]
        return {"pixel_values": values, **{name: make(len(images)) for name, make in extra.items()}}

    return pixels


def patches(images: list[Image.Image]) -> dict[str, Any]:
    """`pixel_values` as flattened patches, (images, patches, 3 * PATCH_SIZE ** 2), with their mask and grid."""
    grid = IMAGE_SIZE // PATCH_SIZE
    pixels = torch.stack([to_tensor(image) for image in images]).unflatten(2, (grid, -1)).unflatten(4, (grid, -1))
    values = pixels.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return {
        "pixel_values": values,
        "spatial_shapes": torch.tensor([[grid, grid]] * len(images)),
        "pixel_attention_mask": torch.ones(values.shape[:2], dtype=torch.int64),
    }


def processed(image_processor: Any) -> Pixels:
    """The outputs of transformers' own image processor on images of one size."""

    def pixels(images: list[Image.Image]) -> dict[str, Any]:
        same_size = [image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE)) for image in images]
        return dict(image_processor(same_size, return_tensors="pt"))

    return pixels


class RowCollator:
    """
    Collates rows of `images`, `prompt` and `completion` (strings) for one family.

    Args:
        model (`PreTrainedModel`):
            Asked for the inputs it takes and, where `num_tokens` is not given, for the number of tokens of an image.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer with an `image_token_id`.
        pixels (`Callable`):
            Makes the visual inputs of a flat list of images.
        num_tokens (`int`, *optional*):
            Tokens that stand for one image.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, pixels: Pixels, num_tokens: int | None = None) -> None:
        self.accepted = set(inspect.signature(type(model).forward).parameters)
        self.tokenizer, self.pixels = tokenizer, pixels
        self.num_tokens = count_image_tokens(model, pixels) if num_tokens is None else num_tokens

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        image = [self.tokenizer.image_token_id] * self.num_tokens
        prompts = [image * len(row["images"]) + self.tokenizer.encode(row["prompt"]) for row in rows]
        completions = [self.tokenizer.encode(row["completion"]) for row in rows]
        length = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
        lists: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for prompt, completion in zip(prompts, completions, strict=True):
            padding = length - len(prompt) - len(completion)
            lists["input_ids"].append(prompt + completion + [self.tokenizer.pad_token_id] * padding)
            lists["attention_mask"].append([1] * (length - padding) + [0] * padding)
            lists["labels"].append([-100] * len(prompt) + completion + [-100] * padding)
        batch: dict[str, Any] = {name: torch.tensor(value) for name, value in lists.items()}
        types = (batch["input_ids"] == self.tokenizer.image_token_id).long()
        batch |= {name: types for name in ("mm_token_type_ids", "token_type_ids") if name in self.accepted}
        images = [image for row in rows for image in row["images"]]
        if images:
            batch |= {name: value for name, value in self.pixels(images).items() if name in self.accepted}
        return batch


@torch.no_grad()
def count_image_tokens(model: Any, pixels: Pixels) -> int:
    """How many embeddings the model makes of one image."""
    parameters = inspect.signature(model.get_image_features).parameters
    accepted = set(parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        accepted |= set(inspect.signature(type(model).forward).parameters)
    inputs = pixels([Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "red")])
    features = model.get_image_features(**{name: value for name, value in inputs.items() if name in accepted})
    features = getattr(features, "pooler_output", features)
    if not isinstance(features, torch.Tensor):
        features = torch.cat([feature.flatten(0, -2) for feature in features])
    return features.flatten(0, -2).shape[0]
