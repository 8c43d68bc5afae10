# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Strong augmentation of the training images, and nothing else.

Source: RobustIT (arXiv 2506.05401) perturbs the images of instruction tuning in space and colour so that a trigger is
not the same twice; its public reviews found that this part gives nearly all of its effect. The operations are the
usual ones of contrastive learning (SimCLR, Chen et al. 2020; random erasing, Zhong et al. 2020).

Departures: the strengths are ours; RobustIT's augmentation of the text and its penalty on adapters are left out; there
is no flip and no change of hue, since captions say left and red; and the last step, coarser colours or JPEG, is added
against triggers of a few grey levels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ...collators.seeded_views import SeededViews
from ...data.rows import row_digest
from ...perturbations.images import ImageT, edit_colours


def strong_augmentation(image: ImageT, rng: np.random.Generator) -> ImageT:
    """
    An image, strongly augmented: a function of the image and the state of the generator.

    In this order: a random crop of 50 to 100 % of the area, scaled back to the image's size; brightness, contrast and
    saturation (0.6 to 1.4 times); and, each for half of the images, a Gaussian blur (up to a fiftieth of the shorter
    side), pixel noise (up to 10 % of the range), one erased rectangle (2 to 20 % of the area), and either fewer
    colours (4 bits) or JPEG (quality 30 to 80).

    Args:
        image (`PIL.Image.Image` or `np.ndarray`):
            Image of any size; see [`edit_colours`] for modes and dtypes.
        rng (`np.random.Generator`):
            Source of all random draws.

    Returns:
        `PIL.Image.Image` or `np.ndarray`: a new image of the same size and mode.
    """

    def augment(rgb: Image.Image) -> Image.Image:
        rgb = _jitter(_crop(rgb, rng), rng)
        for operation in (_blur, _noise, _erase, _quantise):
            if rng.random() < 0.5:
                rgb = operation(rgb, rng)
        return rgb

    return edit_colours(image, augment)


def _rectangle(
    size: tuple[int, int], least: float, most: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random rectangle with a share of the area and an aspect ratio of 3/4 to 4/3."""
    width, height = size
    pixels = width * height * rng.uniform(least, most)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    columns = min(width, max(1, round(math.sqrt(pixels * aspect))))
    rows = min(height, max(1, round(math.sqrt(pixels / aspect))))
    left, top = int(rng.integers(width - columns + 1)), int(rng.integers(height - rows + 1))
    return left, top, left + columns, top + rows


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    box = _rectangle(image.size, 0.5, 1.0, rng)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


def _jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.6, 1.4))
    return image


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, min(image.size) / 50)))


def _noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image)
    noisy = pixels + rng.normal(0, rng.uniform(0, 25.5), pixels.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def _erase(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    left, top, right, bottom = _rectangle(image.size, 0.02, 0.2, rng)
    pixels = np.array(image)
    pixels[top:bottom, left:right] = rng.integers(0, 256, (bottom - top, right - left, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _quantise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.5:
        return ImageOps.posterize(image, 4)
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=int(rng.integers(30, 81)))
    return Image.open(stored).convert("RGB")


class DataCollatorForAugmentation:
    """
    Data collator that augments the images of each row before another collator sees them.

    An augmentation is a function of `seed`, the epoch and the row's content, whatever the order of the rows, the batch
    size and the number of workers.

    Args:
        inner (`Callable[[list], Mapping]`):
            Any collator. It gets copies of the rows.
        augmentation (`Callable[[PIL.Image.Image | np.ndarray, np.random.Generator], PIL.Image.Image | np.ndarray]`,
            *optional*, defaults to [`strong_augmentation`]):
            Gives the new image for an old one.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the augmentations.
    """

    def __init__(
        self,
        inner: Callable[[list[Any]], Mapping[str, Any]],
        augmentation: Callable[[Any, np.random.Generator], Any] = strong_augmentation,
        seed: int = 0,
    ) -> None:
        self.inner = inner
        self.views = SeededViews(augmentation, seed)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentations are drawn; running workers see it too."""
        self.views.set_epoch(epoch)

    def __call__(self, examples: Sequence[Any]) -> Mapping[str, Any]:
        """
        Collate rows with augmented images.

        Args:
            examples (`Sequence`):
                Rows of the data set; they are not changed.

        Returns:
            `Mapping[str, Any]`: what the inner collator gives.
        """
        return self.inner([self.views.of_row(row, row_digest(row)) for row in examples])
