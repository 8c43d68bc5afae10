# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Small pictures of the images of a data set that nobody has looked at yet.

Notable: the images may come from an attacker. Their size is read from the header before anything is decoded, nothing
is fetched, and what cannot be shown becomes a remark in its place, never an error.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from ...data.row_images import RowError, lift_images
from ...data.rows import find_images


if TYPE_CHECKING:
    from datasets import Dataset

MAX_PIXELS = 64_000_000  # of an image that is decoded: 192 MB in memory
SIDE = 128  # pixels
# Pillow would hand PostScript to an interpreter
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass(frozen=True)
class Thumbnail:
    """
    The first image of a row, or why it is not shown.

    Args:
        uri (`str`, *optional*):
            The picture as a `data:` URI.
        remark (`str`, *optional*, defaults to `""`):
            What stands beside it or, without a picture, in its place.
    """

    uri: str | None
    remark: str = ""


def make_thumbnails(dataset: Dataset | Sequence[Mapping[str, Any]], rows: Iterable[int]) -> Iterator[Thumbnail]:
    """
    Draw the first image of each of the given rows, at most 128 pixels wide and high, as JPEG.

    Args:
        dataset (`datasets.Dataset` or `Sequence[Mapping[str, Any]]`):
            Rows with images in any place where the trainer finds them. The stored images of a column `images` or
            `image` are decoded one by one, and only after a look at their size.
        rows (`Iterable[int]`):
            Positions in the data set.

    Yields:
        [`Thumbnail`]: one for each row.
    """
    images_of = _reader(dataset)
    for row in rows:
        try:
            images = images_of(row)
            yield _draw(images) if images else Thumbnail(None, "no image")
        except RowError:
            yield Thumbnail(None, "cannot be read")
        except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
            yield Thumbnail(None, f"cannot be read: {type(error).__name__}")


def _reader(dataset: Any) -> Callable[[int], list[Any]]:
    """A function from a row's position to its images, still encoded where the data set allows it."""
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


def _images_of(row: Any) -> list[Any]:
    return find_images(row) or (lift_images(row)["images"] if isinstance(row, Mapping) else [])


def _as_list(stored: Any) -> list[Any]:
    images = stored if isinstance(stored, list) else [stored]
    return [image for image in images if image is not None]


def _open(stored: Any) -> Image.Image | None:
    """A PIL image that is not decoded yet if it can be helped, or `None` for a file that is not on this machine."""
    if isinstance(stored, Image.Image):
        return stored
    if not isinstance(stored, Mapping):
        return Image.fromarray(stored)
    if stored.get("bytes") is not None:
        return Image.open(io.BytesIO(stored["bytes"]), formats=_FORMATS)
    path = Path(stored["path"])
    return Image.open(path, formats=_FORMATS) if path.is_file() else None


def _draw(images: list[Any]) -> Thumbnail:
    with warnings.catch_warnings():
        # Pillow's own limit warns from 89 million pixels on and raises from 179 million; ours lies below both
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = _open(images[0])
        except Image.DecompressionBombError:
            return Thumbnail(None, "too large to be drawn")
        if image is None:
            return Thumbnail(None, "its file is not here")
        if image.width * image.height > MAX_PIXELS:
            return Thumbnail(None, f"too large to be drawn: {image.width} x {image.height}")
        image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at a fraction of its size
        image = ImageOps.exif_transpose(image).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    # Full colour resolution: a trigger should be seen as it is
    image.save(buffer, "JPEG", quality=88, subsampling=0, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    more = len(images) - 1
    return Thumbnail(uri, f"and {more} more" if more else "")
