# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The pictures of a data set that nobody has looked at yet, one row at a time.

Notable: they may come from an attacker. Their size is read from the header before anything is decoded, and nothing is
fetched.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ...data.row_images import lift_images
from ...data.rows import find_images
from ..passes.row_features import to_picture


MAX_PIXELS = 64_000_000  # of a picture that is decoded: 192 MB in memory
# Pillow would hand PostScript to an interpreter
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


class NotOpenedError(ValueError):
    """Why a picture is not opened, in a few words."""


def picture_reader(dataset: Any) -> Callable[[int], list[Any]]:
    """
    A function that gives a row's pictures, still encoded where the data set allows it.

    Args:
        dataset (`datasets.Dataset` or `Sequence[Mapping[str, Any]]`):
            Rows with pictures in any place where the trainer finds them.

    Returns:
        `Callable[[int], list]`: gives the pictures of the row at a position, for [`open_picture`].
    """
    from ...data.stored_images import image_column

    if hasattr(dataset, "with_format"):
        dataset = dataset.with_format(None)  # pictures, not tensors
        try:
            column = image_column(dataset)
        except ValueError:  # none by that name, or stored as bytes: they may sit inside the messages
            return lambda row: _images_of(dataset[row])
        stored = dataset.select_columns(column).with_format("arrow")
        return lambda row: _as_list(stored[row][column][0].as_py())
    return lambda row: _images_of(dataset[row])


def open_picture(stored: Any, side: int) -> Image.Image:
    """
    A picture in RGB, upright.

    Args:
        stored (`Any`):
            A picture, pixels, or a mapping with `bytes` or a `path`.
        side (`int`):
            Pixels that it will be scaled down to: large JPEGs are decoded at a fraction of their size.

    Raises:
        [`NotOpenedError`]: if its file is not on this machine, or it is too large. Pillow's decoders raise whatever
        else a broken file leads them to.
    """
    with warnings.catch_warnings():
        # Pillow's own limit warns from 89 million pixels on and raises from 179 million; ours lies below both
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = _open(stored)
        except Image.DecompressionBombError as error:
            raise NotOpenedError("too large to be drawn") from error
        if image.width * image.height > MAX_PIXELS:
            raise NotOpenedError(f"too large to be drawn: {image.width} x {image.height}")
        image.draft("RGB", (2 * side, 2 * side))
        return ImageOps.exif_transpose(image).convert("RGB")


def _images_of(row: Any) -> list[Any]:
    return find_images(row) or (lift_images(row)["images"] if isinstance(row, Mapping) else [])


def _as_list(stored: Any) -> list[Any]:
    images = stored if isinstance(stored, list) else [stored]
    return [image for image in images if image is not None]


def _open(stored: Any) -> Image.Image:
    """A picture, not decoded yet where that is possible."""
    if isinstance(stored, Image.Image):
        return stored
    if not isinstance(stored, Mapping):
        return to_picture(stored)
    if stored.get("bytes") is not None:
        return Image.open(io.BytesIO(stored["bytes"]), formats=_FORMATS)
    path = Path(stored["path"])
    if not path.is_file():
        raise NotOpenedError("its file is not here")
    return Image.open(path, formats=_FORMATS)
