# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Edits of an image's colours that leave its kind (PIL or array), size, mode and transparency as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image


ImageT = TypeVar("ImageT", Image.Image, np.ndarray)

# Those whose pixels are 8-bit colours, or stand for some: conversion to RGB does not cut them off
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


def edit_colours(image: ImageT, edit: Callable[[Image.Image], Image.Image]) -> ImageT:
    """
    Edit the RGB form of an image.

    Args:
        image (`PIL.Image.Image` or `np.ndarray` of `uint8`, shape `(H, W)` or `(H, W, C)`):
            The image; it is not changed.
        edit (`Callable[[PIL.Image.Image], PIL.Image.Image]`):
            Takes an RGB image and gives one of the same size.

    Returns:
        `PIL.Image.Image` or `np.ndarray`: of the same size and mode, or shape and dtype. An alpha channel stays as it
        is; palette images get a palette of their own.

    Raises:
        `ValueError`: if the image has a mode of more than 8 bits a channel.
    """
    if isinstance(image, np.ndarray):
        picture = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
        return np.asarray(edit_colours(picture, edit)).reshape(image.shape)
    if image.mode not in MODES:
        raise ValueError(
            f"An image of mode {image.mode!r} cannot be edited in 8-bit colours. Convert the images to one of "
            f"{', '.join(MODES)}, as the model's processor does."
        )
    edited = edit(image.convert("RGB"))
    if image.mode in ("LA", "RGBA"):
        edited = edited.convert(image.mode)
        edited.putalpha(image.getchannel("A"))
    elif image.mode == "P":
        edited = edited.convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        edited = edited.convert(image.mode)
    # The EXIF orientation is part of it; the number of a palette's transparent colour is no longer true
    edited.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return edited
