# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a LLaVA-type model's vision tower makes of images, differentiable: what attackers optimise against."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def tower_features(model: Any, processor: Any) -> Callable[[Tensor], Tensor]:
    """
    The features that a model's language part gets to see, averaged over the tokens of an image.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            A model whose `get_image_features` takes `pixel_values` of shape `(B, 3, H, W)`: LLaVA and its kin. Its
            weights get no gradient.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor: the size, mean and deviation are taken from the image processor.

    Returns:
        `Callable[[Tensor], Tensor]`: maps images (B, 3, H, W) in 0 to 1, of any size, to features (B, D). They are
        stretched to the processor's size.

    Raises:
        `ValueError`: if the image processor does not say its size.
    """
    images = processor.image_processor
    height, width = _size(images)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.image_mean, images.image_std))
    model.requires_grad_(False)

    def features(pixels: Tensor) -> Tensor:
        if pixels.shape[-2:] != (height, width):
            pixels = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(
                0, 1
            )
        values = ((pixels - mean) / std).to(model.device, model.dtype)
        tokens = model.get_image_features(pixel_values=values).pooler_output
        # A tensor of all images, or one of each: with some processors they differ in length
        return torch.stack([image.flatten(0, -2).mean(dim=0) for image in tokens]).float().cpu()

    return features


def _size(image_processor: Any) -> tuple[int, int]:
    crop = getattr(image_processor, "crop_size", None) if getattr(image_processor, "do_center_crop", False) else None
    size: Mapping[str, int] = crop or image_processor.size or {}
    if "height" in size and "width" in size:
        return size["height"], size["width"]
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    raise ValueError(f"The image processor's size is {size}; expected height and width, or shortest_edge.")
