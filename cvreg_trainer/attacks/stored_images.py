# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Image columns as `datasets` stores them: encoded bytes or a path.

Images that nobody changes stay in this form, and those that are changed are decoded one by one, so that an image that
cannot be decoded is known by its row.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Image, IterableDataset, LargeList, List
from PIL import Image as PILImage


_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def image_column(dataset: Dataset | IterableDataset) -> str:
    """The column that holds the images: a `datasets.Image` feature or a list of them.

    Raises:
        `ValueError`: if there is none, or it is not decoded.
    """
    for column in ("images", "image"):
        feature = (dataset.features or {}).get(column)
        if isinstance(feature, (List, LargeList)):
            feature = feature.feature
        if isinstance(feature, Image):
            if not feature.decode:
                raise ValueError(f"Column `{column}` is not decoded; cast it with `Image(decode=True)` first.")
            return column
    raise ValueError(
        f"The data set has the columns {dataset.column_names} and no images; it needs a column `images` or `image` of "
        "`datasets.Image` features (see `Dataset.cast_column`)."
    )


def rows_with_image(dataset: Dataset, column: str) -> np.ndarray:
    """Indices of the rows that have an image, found without decoding any."""
    present = []
    for table in dataset.select_columns([column]).with_format("arrow").iter(batch_size=256):
        values = table[column]
        if isinstance(dataset.features[column], Image):
            present.append(pc.is_valid(values).to_numpy())
        else:
            present.append(pc.fill_null(pc.list_value_length(values), 0).to_numpy() > 0)
    return np.flatnonzero(np.concatenate(present))


def undecoded(feature: Any) -> Any:
    """The feature of the same column whose images come as `{"bytes": ..., "path": ...}`."""
    return Image(decode=False) if isinstance(feature, Image) else type(feature)(Image(decode=False))


@contextmanager
def decoding() -> Iterator[None]:
    """Makes a `ValueError` that a person can read of whatever decoding an image raises."""
    try:
        yield
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        raise ValueError(f"its image is too large to be decoded safely: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        reason = str(error).split(" <")[0]  # without the address of a buffer
        raise ValueError(f"its image cannot be read: {reason}") from error


def decode(stored: Any) -> Any:
    """The PIL image, list of images or `None` of one row.

    Raises:
        `ValueError`: if an image cannot be decoded, or is too large for it to be safe.
    """
    if stored is None or isinstance(stored, PILImage.Image):  # a mapped stream may be decoded whatever is asked of it
        return stored
    if isinstance(stored, list):
        return [decode(image) for image in stored]
    with decoding():
        return Image().decode_example(stored)


def encode(images: Any) -> Any:
    """What is stored for the images of one row, without loss; what is encoded already stays as it is."""
    if isinstance(images, list):
        return [encode(image) for image in images]
    if not isinstance(images, PILImage.Image):
        return images
    if images.mode in _PNG_MODES:
        buffer = io.BytesIO()
        images.save(buffer, "PNG", compress_level=1)  # half the time of the default, a seventh larger
        return {"bytes": buffer.getvalue(), "path": None}
    # A copy has no format: otherwise what was read from a JPEG file would become another JPEG, with new losses
    return Image().encode_example(images.copy())


def identity(stored: Any) -> Any:
    """What identifies stored images on any machine: their bytes, or their pixels where only a path is stored."""
    if isinstance(stored, list):
        return [identity(image) for image in stored]
    if isinstance(stored, dict) and stored["bytes"] is not None:
        return stored["bytes"]
    return decode(stored)
