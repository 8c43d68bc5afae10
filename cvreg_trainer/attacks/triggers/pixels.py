# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Changing the pixels of an image of any mode.

Every global trigger is arithmetic on red, green and blue; what it takes to get there and back is the same for all.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from PIL import Image as PILImage

from ...perturbations.images import COLOUR_MODES


def require_mode(image: PILImage.Image) -> None:
    """Raise a `ValueError` for modes without 8-bit colours (16-bit, floating-point and premultiplied ones)."""
    if image.mode not in COLOUR_MODES:
        raise ValueError(f"A trigger cannot be put on an image of mode {image.mode!r}; convert it to 'RGB' first.")


def edit_pixels(image: PILImage.Image, edit: Callable[[np.ndarray], np.ndarray]) -> PILImage.Image:
    """A copy of an image with its colours changed.

    Transparency is kept. A palette image gets a new palette of up to 256 colours and shows the change approximately; a
    bilevel one is dithered and may not show a weak change at all.

    Args:
        image (`PIL.Image.Image`):
            An image of any 8-bit mode.
        edit (`Callable`):
            Maps the colours, a float32 array (H, W, 3) of levels 0 to 255, to the new ones; the result is rounded and
            clipped.

    Returns:
        `PIL.Image.Image`: of the same size and mode.

    Raises:
        `ValueError`: if the mode has no 8-bit colours.
    """
    require_mode(image)
    before = np.asarray(image.convert("RGB"))
    after = edit(before.astype(np.float32)).round().clip(0, 255).astype(np.uint8)
    if np.array_equal(after, before):
        return image.copy()  # conversions there and back are not exact in every mode
    changed = PILImage.fromarray(after)
    if image.has_transparency_data:
        changed.putalpha(image.convert("RGBA").getchannel("A"))
    if image.mode == "P":
        changed = changed.quantize(256)
    elif image.mode == "LA":
        alpha = changed.getchannel("A")
        changed = changed.convert("L")
        changed.putalpha(alpha)
    else:
        changed = changed.convert(image.mode)
    changed.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return changed


def image_rng(seed: int, pixels: np.ndarray) -> np.random.Generator:
    """Random numbers that are a function of a seed and an image's pixels."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
