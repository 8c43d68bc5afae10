# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Edits of an image's colours that leave its kind (PIL or array), size, mode and transparency as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image


ImageT = TypeVar("ImageT", Image.Image, np.ndarray)

# Those that Pillow converts to RGB and back
COLOUR_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
ALPHA_MODES = ("LA", "RGBA")


def edit_colours(image: ImageT, edit: Callable[[Image.Image], Image.Image]) -> ImageT:
    """
    Edit the RGB form of an image.

    Args:
        image (`PIL.Image.Image` or `np.ndarray` of shape `(H, W)` or `(H, W, C)` with `C` 1, 3 or 4):
            The image; it is not changed. Values that are not 8-bit colours (16-bit scans, floating-point images,
            normalised pixels) are scaled from the range they take in this image to 8 bits, and back after the edit.
        edit (`Callable[[PIL.Image.Image], PIL.Image.Image]`):
            Takes an RGB image and gives one of the same size.

    Returns:
        `PIL.Image.Image` or `np.ndarray`: of the same size and mode, or shape and dtype. An alpha channel stays as it
        is; palette images get a palette of their own, and those with an alpha channel (mode `PA`) become `RGBA`.
    """
    if isinstance(image, np.ndarray):
        return _edit_array(image, edit)
    if image.mode == "PA":
        return edit_colours(image.convert("RGBA"), edit)
    if image.mode not in COLOUR_MODES:
        # Copies, since a mode that Pillow shares with an array cannot be written to
        pixels = _edit_array(np.array(image), edit)
        edited = Image.frombytes(image.mode, image.size, np.ascontiguousarray(pixels).tobytes())
    else:
        edited = edit(image.convert("RGB"))
        if image.mode in ALPHA_MODES:
            edited = edited.convert(image.mode)
            edited.putalpha(image.getchannel("A"))
        elif image.mode == "P":
            edited = edited.convert("P", palette=Image.Palette.ADAPTIVE)
        else:
            edited = edited.convert(image.mode)
    # The EXIF orientation is part of it; the number of a palette's transparent colour is no longer true
    edited.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return edited


def _edit_array(pixels: np.ndarray, edit: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """The same for an array of any dtype; a fourth or second channel is taken for transparency."""
    colours = pixels if pixels.ndim == 3 else pixels[..., None]
    channels = colours.shape[2]
    kept = channels - (channels in (2, 4))
    values = colours[..., :kept]
    low, high = (0.0, 255.0) if pixels.dtype == np.uint8 else _range(values)
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    scaled = np.nan_to_num(scaled).round().clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(scaled[..., 0] if kept == 1 else scaled)
    edited = np.asarray(edit(picture.convert("RGB")).convert(picture.mode)).reshape(values.shape)
    result = edited.astype(np.float64) * ((high - low) / 255) + low
    if np.issubdtype(pixels.dtype, np.integer):
        result = result.round()
    return np.concatenate([result.astype(pixels.dtype), colours[..., kept:]], axis=-1).reshape(pixels.shape)


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)
