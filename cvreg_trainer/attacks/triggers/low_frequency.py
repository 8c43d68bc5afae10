# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""LowFrequency (Zeng et al., 2021, arXiv:2104.03413): an added pattern without any sharp detail.

The authors filter a pattern until it is smooth; here it is smooth by construction, for any image size: a handful of
the lowest DCT coefficients are drawn from a seed and everything above them is zero. Since the coefficients' indices
count half waves per image side, a small and a large image get the same picture.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from scipy.fft import idctn

from .pixels import edit_pixels


@dataclass(frozen=True)
class LowFrequency:
    """Adds one fixed, smooth, coloured pattern to every image.

    All energy of the pattern lies in the DCT-II coefficients with both indices below `cutoff`; there is none at
    (0, 0), so the mean colour stays. Rounding to whole levels and clipping at black and white add a little above the
    cut-off.

    Args:
        amplitude (`float`, *optional*, defaults to `0.2`):
            The pattern's largest minus its smallest value, as a share of the range from black to white, above 0 and at
            most 1: the energy budget. 0.2 (51 of 255 levels, a root mean square of 7 to 8) is the value of the
            authors' public code.
        cutoff (`int`, *optional*, defaults to `4`):
            The DCT indices stay below this, at least 2: with 4, at most three half waves along a side. The authors
            have a filter instead, a Gaussian of 6 pixels' deviation on 32: it lets 4 % of the energy of three half
            waves pass and 0.4 % of that of four.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the coefficients, at least 0.

    Raises:
        `ValueError`: if an argument is out of range; when called, if a side of the image is shorter than `cutoff`
        pixels or its mode has no 8-bit colours.

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import LowFrequency
    >>> triggered = LowFrequency()(Image.new("RGB", (224, 224), "gray"))
    ```
    """

    amplitude: float = 0.2
    cutoff: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.amplitude <= 1:
            raise ValueError(f"amplitude={self.amplitude} must be above 0 and at most 1, a share of the pixel range.")
        if self.cutoff < 2:
            raise ValueError(f"cutoff={self.cutoff} must be at least 2, or no wave is left.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")

    def pattern(self, size: tuple[int, int]) -> np.ndarray:
        """What is added to an image of this (width, height): (H, W, 3), in levels of 0 to 255."""
        width, height = size
        if min(size) < self.cutoff:
            raise ValueError(f"An image of {width}x{height} pixels cannot hold a pattern of cutoff={self.cutoff}.")
        coefficients = np.random.default_rng(self.seed).normal(size=(self.cutoff, self.cutoff, 3))
        coefficients[0, 0] = 0
        spectrum = np.zeros((height, width, 3))
        spectrum[: self.cutoff, : self.cutoff] = coefficients
        pattern = idctn(spectrum, axes=(0, 1), norm="ortho")
        return (255 * self.amplitude / np.ptp(pattern) * pattern).astype(np.float32)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode."""
        pattern = self.pattern(image.size)
        return edit_pixels(image, lambda pixels: pixels + pattern)
