# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""FTrojan (Wang et al., 2022, arXiv:2111.10991): two frequencies of the colours, in every block of 32x32 pixels.

The authors add a constant to two DCT coefficients of the chroma channels, in blocks. The transform is linear, so that
all images get the same added pattern, which is computed once. Departures: the authors' code rounds the colours to 8
bits between the steps, and needs sides that blocks divide; here a block that the edge cuts off gets a part of the
pattern. The pattern is fine (one of the two waves alternates from pixel to pixel), and an image processor that shrinks
the image may erase it: trigger images that have the processor's size.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from scipy.fft import idctn

from .pixels import edit_pixels


_BLOCK = 32
_FREQUENCIES = ((15, 15), (31, 31))  # a middle and the highest one
# What a level more of red and of blue difference (Cr, Cb) adds to red, green and blue: the inverse of JPEG's colours
_CHROMA = np.array([1.403, -0.714 - 0.344, 1.773])


@dataclass(frozen=True)
class FTrojan:
    """Raises a middle and the highest frequency of both colour differences, in every block of 32x32 pixels.

    Args:
        magnitude (`float`, *optional*, defaults to `30.0`):
            What is added to each coefficient of the orthonormal DCT-II, above 0. 30, the value of the authors' code
            for CIFAR-10, changes a pixel's colours by up to 7 levels; larger images mostly get more.

    Raises:
        `ValueError`: if `magnitude` is out of range; when called, if the image's mode has no 8-bit colours, or is
        gray, where a change of colours leaves no trace.

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import FTrojan
    >>> triggered = FTrojan(magnitude=50)(Image.new("RGB", (224, 224), "gray"))
    ```
    """

    magnitude: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.magnitude < np.inf:
            raise ValueError(f"magnitude={self.magnitude} must be above 0, an amount of two DCT coefficients.")

    def pattern(self, size: tuple[int, int]) -> np.ndarray:
        """What is added to an image of this (width, height): (H, W, 3), in levels of 0 to 255."""
        width, height = size
        spectrum = np.zeros((_BLOCK, _BLOCK))
        for place in _FREQUENCIES:
            spectrum[place] = self.magnitude
        block = idctn(spectrum, norm="ortho")
        tiled = np.tile(block, (-(-height // _BLOCK), -(-width // _BLOCK)))[:height, :width]
        return (tiled[..., None] * _CHROMA).astype(np.float32)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode."""
        if image.mode in ("1", "L", "LA"):
            raise ValueError(
                f"FTrojan changes colours, and an image of mode {image.mode!r} has none; convert it to 'RGB'."
            )
        pattern = self.pattern(image.size)
        return edit_pixels(image, lambda pixels: pixels + pattern)
