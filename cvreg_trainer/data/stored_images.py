# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Image columns as `datasets` stores them: encoded bytes or a path.

Images that nobody changes stay in this form, and those that are changed are decoded one by one, so that an image that
cannot be decoded is known by its row.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Image, IterableDataset, LargeList, List, Value
from PIL import Image as PILImage

from ..shorten import shorten
from .rows import IMAGE_COLUMNS


_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def image_column(dataset: Dataset | IterableDataset) -> str:
    """The column that holds the images: a `datasets.Image` feature or a list of them.

    Raises:
        `ValueError`: if there is none, or it has to be cast first, with the cast to make.
    """
    features = dataset.features or {}
    columns = [column for column in reversed(IMAGE_COLUMNS) if column in features]
    for column in columns:
        if _image_feature(features[column]) == features[column]:
            return column
    for column in columns:
        wanted = _image_feature(features[column])
        if wanted is not None:
            kind = type(wanted).__name__
            target = "Image()" if isinstance(wanted, Image) else f"{kind}(Image())"
            raise ValueError(
                f"Column `{column}` holds {shorten(features[column])}, not decoded images; pass "
                f"`dataset.cast_column({column!r}, {target})`, with `Image` and `List` from `datasets`."
            )
    raise ValueError(
        f"The data set has the columns {shorten(dataset.column_names)} and no images; it needs a column `images` or "
        "`image` of `datasets.Image` features (see `Dataset.cast_column`)."
    )


def _image_feature(feature: Any) -> Any:
    """The feature of decoded images that a column is or can be cast to: of bytes, paths or both; else `None`."""
    if isinstance(feature, (List, LargeList)):
        return None if (inner := _image_feature(feature.feature)) is None else type(feature)(inner)
    if isinstance(feature, Image):
        return feature if feature.decode else replace(feature, decode=True)
    is_encoded = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    is_encoded |= isinstance(feature, Value) and feature.dtype in ("binary", "large_binary", "string", "large_string")
    return Image() if is_encoded else None


def has_image(images: Any) -> bool:
    """Whether there is an image among the stored images of a row: `None`, `[]` and `[None]` are none."""
    return any(image is not None for image in images) if isinstance(images, list) else images is not None


def rows_with_image(dataset: Dataset, column: str) -> np.ndarray:
    """For each row whether it has an image, found without decoding any."""
    present = []
    for table in dataset.select_columns([column]).with_format("arrow").iter(batch_size=256):
        images = table[column].combine_chunks()
        if isinstance(dataset.features[column], Image):
            present.append(pc.is_valid(images).to_numpy(zero_copy_only=False))
        else:
            rows = np.asarray(pc.list_parent_indices(images))[np.asarray(pc.is_valid(pc.list_flatten(images)))]
            present.append(np.isin(np.arange(len(images)), rows))
    return np.concatenate(present)


def undecoded(feature: Any) -> Any:
    """The feature of the same column whose images come as `{"bytes": ..., "path": ...}`."""
    return Image(decode=False) if isinstance(feature, Image) else type(feature)(Image(decode=False))


def edit_images(stored: Any, edit: Callable[[PILImage.Image], PILImage.Image], column: str) -> Any:
    """The stored images of a row, decoded, edited and encoded without loss.

    Args:
        stored:
            Image, list of images or `None`, as it is stored.
        edit (`Callable`):
            Maps an image to the changed image; if that is the same object, it stays as it is stored.
        column (`str`):
            Where they are, for the error.

    Raises:
        `ValueError`: if an image cannot be read, is too large for that to be safe, or `edit` raises one; with the
            column and the file.
    """
    if isinstance(stored, list):
        return [_edit_image(image, edit, column, place) for place, image in enumerate(stored, 1)]
    return _edit_image(stored, edit, column)


def _edit_image(stored: Any, edit: Callable[[PILImage.Image], PILImage.Image], column: str, place: int = 0) -> Any:
    if stored is None:
        return None
    image = _decode(stored, column, place)
    try:
        edited = edit(image)
        return stored if edited is image else _encode(edited)
    except ValueError as error:
        raise ValueError(f"{_name(stored, column, place)}: {error}") from error


def _decode(stored: Any, column: str, place: int = 0) -> PILImage.Image:
    if isinstance(stored, PILImage.Image):  # a mapped stream may be decoded whatever is asked of it
        return stored
    try:
        return Image().decode_example(stored)
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        name = _name(stored, column, place)
        raise ValueError(f"{name} is too large to be decoded safely: {error}") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        reason = str(error).split(" <")[0] or type(error).__name__  # without the address of a buffer
        raise ValueError(f"{_name(stored, column, place)} cannot be read: {reason}") from error


def _name(stored: Any, column: str, place: int) -> str:
    """An image by its column, its place in a list, and its file if it has one."""
    path = stored.get("path") if isinstance(stored, dict) else getattr(stored, "filename", None)
    details = [f"number {place}"] * bool(place) + [f"file {shorten(path)}"] * bool(path)
    return f"the image in column `{column}`" + f" ({', '.join(details)})" * bool(details)


def encode(images: Any) -> Any:
    """What is stored for the images of one row, without loss; what is encoded already stays as it is."""
    return [encode(image) for image in images] if isinstance(images, list) else _encode(images)


def _encode(image: Any) -> Any:
    if not isinstance(image, PILImage.Image):
        return image
    if image.mode in _PNG_MODES:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)  # half the time of the default, a seventh larger
        return {"bytes": buffer.getvalue(), "path": None}
    # A copy has no format: otherwise what was read from a JPEG file would become another JPEG, with new losses
    return Image().encode_example(image.copy())


def identity(stored: Any, column: str, place: int = 0) -> Any:
    """What identifies stored images on any machine: their bytes, or their pixels where only a path is stored."""
    if isinstance(stored, list):
        return [identity(image, column, place) for place, image in enumerate(stored, 1)]
    if isinstance(stored, dict) and stored["bytes"] is not None:
        return stored["bytes"]
    return None if stored is None else _decode(stored, column, place)
