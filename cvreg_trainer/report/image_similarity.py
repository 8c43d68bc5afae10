# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How alike two images are: PSNR and SSIM, the numbers attack papers print for the stealth of a trigger."""

import math

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


_PEAK = 255.0
_SIGMA = 1.5
_RADIUS = 5  # an 11x11 window


def _levels(first: Image.Image, second: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Both images as (H, W, 3), in levels of 0 to 255."""
    if first.size != second.size:
        raise ValueError(f"The images have sizes {first.size} and {second.size}; only images of one size compare.")
    return np.asarray(first.convert("RGB"), dtype=np.float64), np.asarray(second.convert("RGB"), dtype=np.float64)


def psnr(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio in decibels, over the pixels and the colours red, green and blue.

    Args:
        first, second (`PIL.Image.Image`):
            Images of one size; they are compared as RGB.

    Returns:
        `float`: infinite for equal images.

    Raises:
        `ValueError`: if the sizes differ.
    """
    one, two = _levels(first, second)
    error = float(((one - two) ** 2).mean())
    return 10 * math.log10(_PEAK**2 / error) if error else math.inf


def ssim(first: Image.Image, second: Image.Image) -> float:
    """Structural similarity (Wang et al., 2004), averaged over the colours red, green and blue.

    Their constants: an 11x11 Gaussian window of deviation 1.5 pixels, K1 = 0.01, K2 = 0.03. Windows at the edges count
    too, with the image mirrored there: left out, a trigger in a corner would hardly show in the mean.

    Args:
        first, second (`PIL.Image.Image`):
            Images of one size; they are compared as RGB.

    Returns:
        `float`: 1 for equal images, otherwise less; at least -1.

    Raises:
        `ValueError`: if the sizes differ.
    """
    one, two = _levels(first, second)

    def local_mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, _SIGMA, radius=_RADIUS, axes=(0, 1))

    mean_one, mean_two = local_mean(one), local_mean(two)
    variance_one, variance_two = local_mean(one**2) - mean_one**2, local_mean(two**2) - mean_two**2
    covariance = local_mean(one * two) - mean_one * mean_two
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    similarity = (2 * mean_one * mean_two + c1) * (2 * covariance + c2)
    similarity /= (mean_one**2 + mean_two**2 + c1) * (variance_one + variance_two + c2)
    return float(similarity.mean())
