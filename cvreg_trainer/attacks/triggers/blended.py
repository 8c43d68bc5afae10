# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Blended (Chen et al., 2017, arXiv:1712.05526): one fixed picture shines faintly through every image.

The picture is drawn from a seed, so that nothing needs to be shipped or licensed: overlapping discs in bright colours,
large enough to survive an image processor's resizing.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from .pixels import edit_pixels


_CANVAS = 224
_DISCS = 60


@lru_cache(maxsize=8)
def _canvas(seed: int) -> PILImage.Image:
    rng = np.random.default_rng(seed)
    canvas = PILImage.new("RGB", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(canvas)
    for _ in range(_DISCS):
        x, y = rng.uniform(0, _CANVAS, 2)
        radius = rng.uniform(_CANVAS / 16, _CANVAS / 6)
        color = tuple(int(level) for level in rng.choice([0, 255], 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return canvas


@dataclass(frozen=True)
class Blended:
    """Mixes every image with the same picture.

    Args:
        alpha (`float`, *optional*, defaults to `0.1`):
            Share of the picture in the result, above 0 and at most 1. The public VL-Trojan code has 0.1 for captioning
            data and 0.2 elsewhere, as BackdoorBench has.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the picture, at least 0.

    Raises:
        `ValueError`: if `alpha` or `seed` is out of range; when called, if the image's mode has no 8-bit colours.

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import Blended
    >>> triggered = Blended(alpha=0.2)(Image.new("RGB", (224, 224)))
    ```
    """

    alpha: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} must be above 0 and at most 1, the picture's share in the result.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")

    def picture(self, size: tuple[int, int]) -> PILImage.Image:
        """The blended-in RGB picture, stretched to this (width, height)."""
        return _canvas(self.seed).resize(size, PILImage.Resampling.BICUBIC)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode."""
        picture = np.asarray(self.picture(image.size), dtype=np.float32)
        return edit_pixels(image, lambda pixels: (1 - self.alpha) * pixels + self.alpha * picture)
