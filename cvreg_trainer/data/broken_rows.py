# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Which row a broken image belongs to.

Notable: nothing here is in the way of rows that are fine. A broken image shows when it is decoded, mostly in a worker
process that does not know the row's number; the number is looked for then, by going over the rows once more.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from datasets import Dataset, IterableDataset
from PIL import Image

from ..shorten import shorten
from .row_images import (
    RowError,
    content_parts,
    image_source,
    in_column,
    is_address,
    is_image_part,
    load_image,
    open_image,
    reading_image,
)
from .rows import CONVERSATIONS, IMAGE_COLUMNS, copy_row, find_images


logger = logging.getLogger(__name__)

# What reading an image can raise; anything else is not about a row
IMAGE_ERRORS = (OSError, SyntaxError, RowError, Image.DecompressionBombError, Image.DecompressionBombWarning)


@contextmanager
def naming_rows(
    dataset: Any,
    source: str,
    collate: Callable[[list[Any]], Any] | None = None,
    given: Callable[[int], int] | None = None,
) -> Iterator[None]:
    """
    Put the row's number, column and file into errors about images that occur while rows of a data set are read.

    Args:
        dataset:
            Where the rows come from.
        source (`str`):
            What the error calls it.
        collate (`Callable[[list], Any]`, *optional*):
            A collator that opens files by itself.
        given (`Callable[[int], int]`, *optional*):
            The number of a row in the data set that it came from.

    Raises:
        `ValueError`: in the place of the error about an image, if a row gives one again.
    """
    try:
        yield
    except IMAGE_ERRORS as error:
        logger.info("Looking for the row of %s whose image cannot be read.", source)
        broken = find_broken_row(dataset, collate)
        if broken is None:
            raise
        number = broken[0] if given is None else given(broken[0])
        raise ValueError(f"Row {number} of {source}: {broken[1]}.") from error


def find_broken_row(dataset: Any, collate: Callable[[list[Any]], Any] | None = None) -> tuple[int, str] | None:
    """
    The first row that cannot be read.

    Args:
        dataset:
            A data set with a length, or a stream.
        collate (`Callable[[list], Any]`, *optional*):
            Called with every row by itself too.

    Returns:
        `tuple[int, str]`: its number, and what is wrong with it; `None` if all rows can be read.
    """
    is_stream = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
    rows = iter(dataset) if is_stream else None
    number = 0
    while rows is not None or number < len(dataset):
        try:
            reason = row_problem(dataset, number, collate) if rows is None else _problem(partial(next, rows), collate)
        except StopIteration:
            return None
        if reason is not None:
            return number, reason
        number += 1
    return None


def row_problem(
    dataset: Any,
    number: int,
    collate: Callable[[list[Any]], Any] | None = None,
    check: Callable[[Any], Any] | None = None,
) -> str | None:
    """
    What is wrong with one row, if it cannot be read.

    Args:
        dataset:
            A data set whose rows have positions.
        number (`int`):
            The row's.
        collate (`Callable[[list], Any]`, *optional*):
            Called with the row by itself.
        check (`Callable[[Any], Any]`, *optional*):
            Raises a [`RowError`] for a row that cannot be trained on.
    """
    reason = _problem(lambda: dataset[number], collate, check)
    if reason is not None and isinstance(dataset, Dataset):
        return (_find_stored(dataset, number) or reason).rstrip(".")
    return reason


def _problem(
    read: Callable[[], Any],
    collate: Callable[[list[Any]], Any] | None,
    check: Callable[[Any], Any] | None = None,
) -> str | None:
    try:
        row = read()
        if check is not None:
            check(row)
        _read_images(row)
        if collate is not None:
            collate([copy_row(row)])
    except IMAGE_ERRORS as error:
        return _reason(error).rstrip(".")
    return None


def _reason(error: BaseException) -> str:
    try:
        with reading_image():
            raise error
    except RowError as named:
        return str(named)


def _read_images(row: Any) -> None:
    if not isinstance(row, Mapping):
        return
    for column in IMAGE_COLUMNS:
        images = row.get(column)
        for image in images if isinstance(images, list | tuple) else [images]:
            if not isinstance(image, str) or not is_address(image):
                with in_column(column), reading_image():
                    open_image(image)
    for column in CONVERSATIONS:
        turns = row.get(column)
        for turn in turns if isinstance(turns, list | tuple) else ():
            for part in filter(is_image_part, content_parts(turn)):
                with in_column(column), reading_image():
                    open_image(image_source(part))
    for image in find_images(row):
        if isinstance(image, Image.Image):
            with reading_image():
                image.load()


def _find_stored(dataset: Dataset, number: int) -> str:
    """Which stored image of a row is broken: column, file and reason; empty if none is."""
    stored = dataset.with_format("arrow")[number : number + 1].to_pylist()[0]
    for column, value in stored.items():
        for image in _walk_stored(value):
            path, data = image["path"], image["bytes"]
            try:
                with in_column(column), reading_image(f"the image {shorten(path)}" if path else "its image"):
                    load_image(str(path) if data is None else io.BytesIO(data))
            except RowError as error:
                return str(error)
    return ""


def _walk_stored(value: Any) -> Iterator[Mapping[str, Any]]:
    """Encoded images, the form of `datasets`, at any depth."""
    if isinstance(value, Mapping):
        if value.keys() == {"bytes", "path"}:
            if any(item is not None for item in value.values()):
                yield value
            return
        for item in value.values():
            yield from _walk_stored(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk_stored(item)
