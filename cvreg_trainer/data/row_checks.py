# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What must hold for the texts of every row before a training or a command starts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset, LargeList, List

from ..shorten import shorten
from .row_images import RowError, content_parts
from .rows import IMAGE_COLUMNS


# The forms of a row that can be trained on
RESPONSE_FORMS = ({"messages"}, {"prompt", "completion"}, {"text"})
TEXT_COLUMNS = ("messages", "prompt", "completion", "text")
PLACEHOLDER = "<image>"


def check_columns(columns: Collection[str], source: str) -> None:
    """
    Raise unless rows with these columns can be trained on.

    Args:
        columns (`Collection[str]`):
            Names of the columns.
        source (`str`):
            Where the rows come from, for the error: ``"`train_dataset`"`` or `"--data rows.json"`.

    Raises:
        `ValueError`: naming the columns, and what to do about LLaVA's and ShareGPT's `conversations`.
    """
    if any(form <= set(columns) for form in RESPONSE_FORMS):
        return
    if "conversations" in columns:
        raise ValueError(
            f"{source} has `conversations` of `from` and `value` turns, the format of LLaVA and ShareGPT. Convert it "
            "with `cvreg_trainer.data.to_messages(dataset)`."
        )
    raise ValueError(
        f"{source} has the columns {', '.join(map(str, columns)) or '(none)'}; it needs `messages`, `prompt` and "
        "`completion`, or `text`."
    )


def check_rows(
    rows: Iterable[Any], source: str, image_tokens: Collection[str] = (PLACEHOLDER,), empty_texts: bool = False
) -> None:
    """
    Raise for the first row whose text cannot be trained on; see [`check_row`].

    Args:
        rows (`Iterable`):
            The rows in their order. Images are looked at only where they are named inside messages.
        source (`str`):
            Where the rows come from, for the error.
        image_tokens (`Collection[str]`, *optional*, defaults to `("<image>",)`):
            What stands for an image in the family's texts.
        empty_texts (`bool`, *optional*, defaults to `False`):
            Whether empty texts are fine.

    Raises:
        `ValueError`: naming the row.
    """
    for number, row in enumerate(rows):
        try:
            check_row(row, image_tokens, empty_texts)
        except RowError as error:
            raise ValueError(f"Row {number} of {source}: {error}.") from error


def check_row(row: Any, image_tokens: Collection[str] = (PLACEHOLDER,), empty_texts: bool = False) -> None:
    """
    Raise for a row with a message, prompt, completion or text that is missing or empty, or whose conversation writes
    an image's placeholder into a string.

    Args:
        row (`Any`):
            Row; one that is not a mapping is left to its collator. In plain text placeholders belong there, unless
            the row says `num_images: 0`; see [`text_rows`].
        image_tokens (`Collection[str]`, *optional*, defaults to `("<image>",)`):
            What stands for an image in the family's texts.
        empty_texts (`bool`, *optional*, defaults to `False`):
            Whether empty texts are fine. TRL trains them, to end at once.

    Raises:
        [`RowError`]
    """
    if not isinstance(row, Mapping):
        return
    form = next((form for form in RESPONSE_FORMS if form <= row.keys()), set())
    for name in sorted(form, reverse=True):
        value = row[name]
        is_empty = isinstance(value, str) and not value.strip() and not empty_texts and name != "prompt"
        if value is None or is_empty:
            raise RowError(f"its `{name}` is {shorten(value)}; give it a text, or leave the row out")
        if not isinstance(value, str | list | tuple):
            raise RowError(f"its `{name}` is {shorten(value)}; expected a text or messages")
        if isinstance(value, list | tuple):
            _check_messages(name, value, image_tokens, empty_texts)
        elif row.get("num_images") == 0:
            for token in image_tokens:
                if isinstance(value, str) and token in value:
                    raise RowError(
                        f"its `{name}` has a place for an image, {shorten(token)}, and the row has no image"
                    )


def _check_messages(column: str, messages: Any, image_tokens: Collection[str], empty_texts: bool) -> None:
    if not messages:
        raise RowError(f"its `{column}` has no messages; leave the row out")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") is None:
            if isinstance(message, Mapping) and {"from", "value"} <= message.keys():
                raise RowError(
                    f"its `{column}` holds turns of `from` and `value`, the format of LLaVA and ShareGPT. Convert the "
                    "data set with `cvreg_trainer.data.to_messages(dataset)`"
                )
            raise RowError(f"message {place} of `{column}` is {shorten(message)}; expected `role` and `content`")
        name = f"message {place} of `{column}` ({message['role']})"
        content = message.get("content")
        if message.get("tool_calls"):
            continue
        if content is not None and not isinstance(content, str | list | tuple):
            raise RowError(f"{name} has the content {shorten(content)}; expected a text or a list of parts")
        is_empty = content is None or len(content) == 0
        if is_empty and (content != "" or (message["role"] == "assistant" and not empty_texts)):
            raise RowError(f"{name} has no content, it is {shorten(content)}; give it a text, or leave the row out")
        texts = [content] if isinstance(content, str) else [part.get("text") for part in content_parts(message)]
        for token in image_tokens:
            if any(isinstance(text, str) and token in text for text in texts):
                raise RowError(
                    f"{name} has {shorten(token)} inside a text, where it would be read as words beside the image's "
                    "own place. Convert the data set with `cvreg_trainer.data.to_messages(dataset)`"
                )


def check_not_empty(dataset: Any, source: str) -> None:
    """
    Raise a `ValueError` if a data set has no rows.

    Args:
        dataset:
            A data set with a length, or a stream, of which the first row is read. Anything else is left to whoever
            refuses it.
        source (`str`):
            What the error calls it.
    """
    try:
        is_empty = len(dataset) == 0
    except TypeError:
        is_empty = isinstance(dataset, IterableDataset) and next(iter(dataset), None) is None
    if is_empty:
        raise ValueError(f"{source} has no rows.")


def text_rows(dataset: Dataset, columns: Collection[str] = TEXT_COLUMNS) -> Iterator[dict[str, Any]]:
    """
    The rows of a data set without its images: what is checked before a training cannot wait for them to be decoded.

    Args:
        dataset (`datasets.Dataset`):
            The data set; its own transform is not applied.
        columns (`Collection[str]`, *optional*):
            Columns to read; by default those of text and conversations. What a row does not have is left out.

    Yields:
        `dict[str, Any]`: the columns, and `num_images`, the number of images in its image
        columns.
    """
    names = [name for name in columns if name in dataset.column_names]
    images = [name for name in IMAGE_COLUMNS if name in dataset.column_names]
    for table in dataset.select_columns(names + images).with_format("arrow").iter(batch_size=1000):
        counts = sum((_count_images(table[name]) for name in images), np.zeros(len(table), dtype=np.int64))
        values = {
            name: [_decode_json(dataset.features[name], value) for value in table[name].to_pylist()] for name in names
        }
        for place, count in enumerate(counts.tolist()):
            yield {**{name: column[place] for name, column in values.items()}, "num_images": count}


def _count_images(column: pa.ChunkedArray) -> np.ndarray:
    """Number of values that are not null in each row of a column of images or lists of images."""
    values = column.combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        present = pc.list_parent_indices(values).to_numpy()[pc.list_flatten(values).is_valid().to_numpy(False)]
        return np.bincount(present, minlength=len(values))
    return values.is_valid().to_numpy(False).astype(np.int64)


def _decode_json(feature: Any, value: Any) -> Any:
    """A value as `datasets` decodes it, which keeps values of mixed types as JSON."""
    if value is None:
        return None
    if type(feature).__name__ == "Json":
        return json.loads(value)
    if isinstance(feature, (List, LargeList)):
        return [_decode_json(feature.feature, item) for item in value]
    if isinstance(feature, Mapping):
        return {name: _decode_json(feature[name], item) for name, item in value.items()}
    return value


def first_rows(dataset: Any, number: int = 8) -> list[Any]:
    """The first rows of a data set or stream (fewer if it is shorter)."""
    if isinstance(dataset, IterableDataset):
        return list(islice(dataset, number))
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return [dataset[index] for index in range(min(number, len(dataset)))]
    return []
