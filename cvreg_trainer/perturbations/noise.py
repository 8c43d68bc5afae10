# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Noise: every pixel and channel of the rectangle is drawn anew, uniformly.

8-bit images use their whole range. Anything wider (16-bit scans, float images, normalised pixel tensors) has no fixed
range, and a 12-bit scan stored in 16 bits would turn into glare: there each channel keeps to the values that it takes
in the image.
"""

import numpy as np


def noise(region: np.ndarray, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Replace a region by uniform random pixels.

    Args:
        region (`np.ndarray` of shape `(h, w, C)`):
            Pixels of the rectangle.
        image (`np.ndarray` of shape `(H, W, C)`):
            Whole image, before the change. It gives the range of each channel, except for `uint8`: 0 to 255.
        rng (`np.random.Generator`):
            Source of the pixels.

    Returns:
        `np.ndarray` of shape `(h, w, C)`: new pixels, in the dtype of `region`.
    """
    if region.dtype == np.uint8:
        return rng.integers(0, 256, size=region.shape, dtype=np.uint8)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    if np.issubdtype(region.dtype, np.integer):
        return rng.integers(low, high, size=region.shape, endpoint=True).astype(region.dtype)
    return rng.uniform(low, high, size=region.shape).astype(region.dtype)
