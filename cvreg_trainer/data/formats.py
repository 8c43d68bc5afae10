# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows in the formats of other training tools, converted where their meaning is plain.

LLaVA       {"image": ..., "conversations": [{"from": "human", "value": "<image>\nWhat is this?"}, ...]}
ShareGPT    {"images": [...], "conversations": [{"from": "user", "value": ...}, ...], "system": ...}
`<image>`   {"images": [...], "messages": [{"role": "user", "content": "<image>\nWhat is this?"}, ...]}

BackdoorVLM's poisoned sets are ShareGPT's, with {"metadata": {"poisoned": true, ...}} in rows that its code changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from datasets import Dataset, IterableDataset, Value

from ..shorten import shorten
from .row_checks import PLACEHOLDER, first_rows, text_rows
from .row_images import RowError, content_parts, image_source, images_of_columns, is_image_part
from .rows import CONVERSATIONS


AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}
POISON_FIELD = "metadata.poisoned"
_PLACE = re.compile(rf"[ \t]*\n?{re.escape(PLACEHOLDER)}\n?[ \t]*")


def to_messages(dataset: AnyDataset) -> AnyDataset:
    """
    Convert rows of LLaVA's or ShareGPT's format, or with `<image>` inside the texts of a conversation, to `messages`.

    `from` and `value` become `role` and `content`, a column `system` the first message. Contents become lists of
    parts, in which `{"type": "image"}` takes the place of `<image>`; images without one come first, before the
    question. Rows that have this form already, and rows of plain text, stay as they are. Images are not opened.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Rows with a column `conversations`, or with `messages`, `prompt` or `completion`.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: the rows in their order, with `messages` in the place of
        `conversations` and `system`; the same data set if there is nothing to convert.

    Raises:
        `ValueError`: naming the row, if a turn's speaker is unknown, a turn has no text, or the numbers of images and
            of places for them differ.

    Example:

    ```python
    >>> from cvreg_trainer.data import to_messages
    >>> turns = [{"from": "human", "value": "<image>\\nWhat is this?"}, {"from": "gpt", "value": "A ring."}]
    >>> to_messages(Dataset.from_list([{"image": "ring.png", "conversations": turns}]))[0]["messages"][0]
    {'content': [{'text': None, 'type': 'image'}, {'text': 'What is this?', 'type': 'text'}], 'role': 'user'}
    ```
    """
    if not _is_foreign(dataset):
        return dataset
    given: list[str] = list(dataset.column_names or first_rows(dataset, 1)[0])
    converted = [name for name in ("conversations", "system", *CONVERSATIONS) if name in given]
    if isinstance(dataset, IterableDataset):
        return dataset.map(_convert_streamed, remove_columns=converted)
    rows = [_convert_row(number, row) for number, row in enumerate(text_rows(dataset, converted))]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return replace_columns(dataset.with_format(None), converted, columns)


def replace_columns(dataset: Dataset, old: Collection[str], new: Mapping[str, list[Any]]) -> Dataset:
    """
    The data set with some columns in the place of others, which may be all of its columns.

    Args:
        dataset (`datasets.Dataset`):
            The data set.
        old (`Collection[str]`):
            Columns to leave out.
        new (`Mapping[str, list]`):
            Values of the new columns, in memory.
    """
    for name, values in new.items():
        dataset = dataset.add_column(f"new {name}", values)
    return dataset.remove_columns(list(old)).rename_columns({f"new {name}": name for name in new})


def mark_poisoned(dataset: AnyDataset, field: str = POISON_FIELD) -> AnyDataset:
    """
    Say in a column `is_poisoned`, as [`poison_dataset`] does, which rows another tool has poisoned.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Rows that are marked in some other way.
        field (`str`, *optional*, defaults to `"metadata.poisoned"`):
            Column with the mark, or `column.key`; the default is BackdoorVLM's. Marks are `true` and `false`, 1 and 0,
            or these as text; a row without one is clean.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: the rows in their order, with the column `is_poisoned` too.

    Raises:
        `ValueError`: if there is a column `is_poisoned` already or none that `field` names, or, with its row, if a
            mark is something else.

    Example:

    ```python
    >>> from cvreg_trainer.data import mark_poisoned
    >>> mark_poisoned(Dataset.from_list([{"text": "a", "backdoor": 1}, {"text": "b"}]), "backdoor")["is_poisoned"]
    [True, False]
    ```
    """
    column, _, key = field.partition(".")
    names = list(dataset.column_names or first_rows(dataset, 1)[0])
    if "is_poisoned" in names:
        raise ValueError("The data set has a column `is_poisoned` already.")
    if column not in names:
        raise ValueError(
            f"field={shorten(field)}: the data set has no column {shorten(column)}, but {shorten(names)}."
        )
    if isinstance(dataset, IterableDataset):
        return dataset.map(lambda row, number: {"is_poisoned": _mark(row, column, key, number)}, with_indices=True)
    marks = [_mark(row, column, key, number) for number, row in enumerate(dataset.select_columns([column]))]
    return dataset.add_column("is_poisoned", marks, feature=Value("bool"))


def has_marks(dataset: Dataset) -> bool:
    """Whether a data set says in BackdoorVLM's way which rows are poisoned, and not in ours."""
    column, _, key = POISON_FIELD.partition(".")
    feature = dataset.features.get(column)
    return "is_poisoned" not in dataset.features and isinstance(feature, dict) and key in feature


def _mark(row: Mapping[str, Any], column: str, key: str, number: int) -> bool:
    value = row[column]
    if key and value is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"Row {number}: `{column}` is {shorten(value)}; expected an entry with {shorten(key)}.")
        value = value.get(key)
    mark = {"true": True, "1": True, "false": False, "0": False, "none": False}.get(str(value).strip().lower())
    if mark is None:
        name = f"{column}.{key}" if key else column
        raise ValueError(f"Row {number}: `{name}` is {shorten(value)}; expected true or false, or 1 or 0.")
    return mark


def _is_foreign(dataset: Dataset | IterableDataset) -> bool:
    if isinstance(dataset, IterableDataset):
        return any(map(_is_foreign_row, first_rows(dataset)))
    return "conversations" in dataset.column_names or any(map(_is_foreign_row, text_rows(dataset)))


def _is_foreign_row(row: Mapping[str, Any]) -> bool:
    """Whether a row's conversation is in another tool's words."""
    if row.get("conversations") is not None:
        return True
    for name in CONVERSATIONS:
        turns = row.get(name)
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, Mapping) and ("from" in turn or any(PLACEHOLDER in text for text in _texts(turn))):
                return True
    return False


def _texts(turn: Mapping[str, Any]) -> list[str]:
    content = turn.get("content", turn.get("value"))
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content_parts(turn)]
    return [text for text in texts if isinstance(text, str)]


def _convert_streamed(row: dict[str, Any]) -> dict[str, Any]:
    number = len([image for image in images_of_columns(row) if image is not None])
    try:
        return convert_conversations({**row, "num_images": number})
    except RowError as error:
        raise ValueError(f"A row of the stream: {error}.") from error


def _convert_row(number: int, row: dict[str, Any]) -> dict[str, Any]:
    try:
        return convert_conversations(row)
    except RowError as error:
        raise ValueError(f"Row {number}: {error}.") from error


def convert_conversations(row: Mapping[str, Any]) -> dict[str, Any]:
    """
    The conversations of one row; see [`to_messages`].

    Args:
        row (`Mapping[str, Any]`):
            Its columns `conversations` and `system`, or `messages`, `prompt` and `completion`, and `num_images`.

    Returns:
        `dict[str, Any]`: `messages`, or what the row has of the three, as messages with lists of parts.

    Raises:
        [`RowError`]: if the row cannot be converted.
    """
    if row.get("conversations") is not None:
        turns = list(row["conversations"])
        if row.get("system"):
            turns.insert(0, {"from": "system", "value": row["system"]})
        columns = {"messages": turns}
    else:
        columns = {name: row[name] for name in CONVERSATIONS if row.get(name) is not None}
    result = {name: _convert_turns(turns, name) for name, turns in columns.items()}
    conversations = [turns for turns in result.values() if isinstance(turns, list)]
    parts = [part for turns in conversations for turn in turns for part in turn["content"] if is_image_part(part)]
    places = [image_source(part) for part in parts]
    images = row["num_images"]
    if not places and images:
        _put_first(conversations, images)
    elif sum(source is None for source in places) != images and (images or None in places):
        number = sum(source is None for source in places)
        raise RowError(f"its text has {number} places for images ({PLACEHOLDER}) and the row has {images} images")
    return result


def _convert_turns(turns: Any, name: str) -> Any:
    if not isinstance(turns, list):
        return turns  # plain text
    return [_convert_turn(turn, place, name) for place, turn in enumerate(turns)]


def _convert_turn(turn: Any, place: int, name: str) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise RowError(f"turn {place} of `{name}` is {shorten(turn)}; expected `from` and `value`")
    speaker = turn.get("from", turn.get("role"))
    role = ROLES.get(str(speaker).lower())
    if role is None:
        raise RowError(f"turn {place} of `{name}` is by {shorten(speaker)}; expected one of {', '.join(ROLES)}")
    content = turn.get("value", turn.get("content"))
    if not content:
        raise RowError(f"turn {place} of `{name}` ({role}) has no text, it is {shorten(content)}")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value", "role", "content", "weight")}
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": role, "content": [new for part in parts for new in _split(part)], **rest}


def _split(part: Any) -> list[dict[str, Any]]:
    """A part of a message with its placeholders as parts of their own."""
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    text = part.get("text")
    if not isinstance(text, str) or PLACEHOLDER not in text:
        return [part]
    pieces = _PLACE.split(text)
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(pieces):
        parts += [{"type": "image", "text": None}] if index else []
        parts += [{"type": "text", "text": piece}] if piece.strip() else []
    return parts


def _put_first(conversations: list[list[dict[str, Any]]], number: int) -> None:
    for turns in conversations:
        for turn in turns:
            if turn["role"] == "user":
                turn["content"] = [{"type": "image", "text": None} for _ in range(number)] + turn["content"]
                return
