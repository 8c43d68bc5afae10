# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Small pictures of the images of a data set that nobody has looked at yet.

Notable: what cannot be shown becomes a remark in its place, never an error.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ....data.row_images import RowError
from ..stored_pictures import NotOpenedError, open_picture, picture_reader


if TYPE_CHECKING:
    from datasets import Dataset

SIDE = 128  # pixels
MEAN_SIDE = 96


@dataclass(frozen=True)
class Thumbnail:
    """
    The first image of a row, or why it is not shown.

    Args:
        uri (`str`, *optional*):
            The picture as a `data:` URI.
        remark (`str`, *optional*, defaults to `""`):
            Text to show beside it or, without a picture, in its place.
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
    images_of = picture_reader(dataset)
    for row in rows:
        try:
            images = images_of(row)
            yield _draw(images) if images else Thumbnail(None, "no image")
        except NotOpenedError as error:
            yield Thumbnail(None, str(error))
        except RowError:
            yield Thumbnail(None, "cannot be read")
        except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
            yield Thumbnail(None, f"cannot be read: {type(error).__name__}")


def mean_picture(dataset: Dataset | Sequence[Mapping[str, Any]], rows: Iterable[int]) -> str | None:
    """
    The mean of the first images of some rows, stretched to 96 x 96 pixels.

    Args:
        dataset (`datasets.Dataset` or `Sequence[Mapping[str, Any]]`):
            As [`make_thumbnails`] takes it.
        rows (`Iterable[int]`):
            Positions in the data set; rows whose image cannot be read are left out.

    Returns:
        `str`: the picture as a `data:` URI; `None` if no image could be read.
    """
    images_of = picture_reader(dataset)
    total, count = np.zeros((MEAN_SIDE, MEAN_SIDE, 3)), 0
    for row in rows:
        try:
            small = open_picture(images_of(row)[0], MEAN_SIDE).resize((MEAN_SIDE, MEAN_SIDE))
        except Exception:  # as above, and for a row without an image
            continue
        total, count = total + np.asarray(small), count + 1
    return _as_uri(Image.fromarray((total / count).round().astype(np.uint8))) if count else None


def _draw(images: list[Any]) -> Thumbnail:
    image = open_picture(images[0], SIDE)
    image.thumbnail((SIDE, SIDE))
    more = len(images) - 1
    return Thumbnail(_as_uri(image), f"and {more} more" if more else "")


def _as_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    # Full colour resolution: a trigger should be seen as it is
    image.save(buffer, "JPEG", quality=88, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
