# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows as plain conversations, whatever their form: turns of texts and places for images, and the images as stored.

Notable: no image is decoded, so nothing changes in a picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from tqdm.auto import tqdm

from ..shorten import shorten
from .row_images import (
    RowError,
    content_parts,
    decode_text,
    image_source,
    images_of_columns,
    is_address,
    is_image_part,
)
from .rows import IMAGE_COLUMNS
from .stored_images import encode, undecoded


ROLES = {"system": "system", "user": "human", "assistant": "gpt"}  # with ShareGPT's names


@dataclass(frozen=True)
class Conversation:
    """
    The conversation of a row.

    Args:
        number (`int`):
            Position of the row.
        turns (`list[tuple[str, list[str | None]]]`):
            Role and parts of each message; a part is a text, or `None` for an image.
        images (`list`):
            The images in the order of their places, as they are stored or, where that was asked for, as paths.
    """

    number: int
    turns: list[tuple[str, list[str | None]]]
    images: list[Any]


def read_conversations(dataset: Dataset, rows: Sequence[int], folder: Path | None = None) -> Iterator[Conversation]:
    """
    Read rows as conversations.

    Args:
        dataset (`datasets.Dataset`):
            Rows with `messages`, or with `prompt` and `completion` as messages.
        rows (`Sequence[int]`):
            Positions of the rows to read.
        folder (`Path`, *optional*):
            Where images become files that are none yet; all are absolute paths then.

    Yields:
        [`Conversation`]: one for each row.

    Raises:
        `ValueError`: if a row is not a conversation, or its image cannot be read; the message names the row.
    """
    dataset = dataset.with_format(None)
    for column in IMAGE_COLUMNS:
        feature = dataset.features.get(column)
        if isinstance(getattr(feature, "feature", feature), ImageFeature):
            dataset = dataset.cast_column(column, undecoded(feature))
    for number in tqdm(rows, desc="Exporting", unit="row", disable=None):
        try:
            row = _read_conversation(number, dataset[number])
            if folder is not None:
                name = f"{number:08d}"
                names = [name if len(row.images) == 1 else f"{name}-{place}" for place in range(len(row.images))]
                pairs = zip(row.images, names, strict=True)
                row = Conversation(number, row.turns, [_path(image, folder, name) for image, name in pairs])
            yield row
        except (RowError, OSError) as error:
            raise ValueError(f"Row {number}: {error}.") from error


def _read_conversation(number: int, row: Mapping[str, Any]) -> Conversation:
    messages = row.get("messages") or [*_messages(row, "prompt"), *_messages(row, "completion")]
    if not messages:
        raise RowError("it has no `messages`, and other tools have no place for rows of plain text; use parquet")
    given = [image for image in images_of_columns(row) if image is not None]
    sources: list[Any] = []
    turns = [_turn(message, sources) for message in messages]
    named = [source for source in sources if source is not None]
    if not sources and given:
        first = next((parts for role, parts in turns if role == "user"), turns[0][1])
        first[:0] = [None] * len(given)
        sources = [None] * len(given)
    if len(named) < len(sources):
        if len(sources) - len(named) != len(given):
            raise RowError(f"it has {len(sources) - len(named)} places for images and {len(given)} images")
        rest = iter(given)
        sources = [next(rest) if source is None else source for source in sources]
    return Conversation(number, turns, sources)


def _messages(row: Mapping[str, Any], column: str) -> list[Any]:
    turns = row.get(column)
    if isinstance(turns, str):
        raise RowError(
            f"its `{column}` is plain text, written for one family of models, for which other tools have no place; "
            "use parquet"
        )
    return turns or []


def _turn(message: Mapping[str, Any], sources: list[Any]) -> tuple[str, list[str | None]]:
    """A message as a turn; what its parts name or hold as images, or `None`, is appended to `sources`."""
    role = message["role"]
    if role not in ROLES:
        raise RowError(f"it has a message by {shorten(role)}; expected {', '.join(ROLES)}")
    if isinstance(message["content"], str):
        return role, [message["content"]]
    parts: list[str | None] = []
    for part in content_parts(message):
        if is_image_part(part):
            sources.append(image_source(part))
            parts.append(None)
        elif isinstance(part, str):
            parts.append(part)
        elif isinstance(part, Mapping) and part.get("text") is not None:
            parts.append(part["text"])
        else:
            raise RowError(f"a message holds {shorten(part)}; expected texts and images")
    return role, parts


def _path(image: Any, folder: Path, name: str) -> str:
    """The absolute path of an image: its own, or that of a new file with its bytes."""
    if isinstance(image, Mapping) and image.get("bytes") is None:
        image = image.get("path")
    if isinstance(image, (str, PurePath)):
        encoded = decode_text(str(image))
        if encoded is None and is_address(str(image)):
            raise RowError(f"its image is the address {shorten(str(image))}, which is not fetched")
        if encoded is None:
            return str(Path(image).resolve())
        image = encoded
    content = encoded_image(image)
    try:
        with Image.open(io.BytesIO(content)) as header:
            suffix = (header.format or "").lower()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RowError(f"its image cannot be read: {str(error).split(' <')[0]}") from error
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{'jpg' if suffix == 'jpeg' else suffix}"
    path.write_bytes(content)
    return str(path)


def encoded_image(image: Any) -> bytes:
    """
    The bytes of an image as a file; those that are stored, if they are.

    Args:
        image:
            A picture, its bytes, its path, text that holds it, or a mapping with `bytes` or `path`.

    Raises:
        [`RowError`]: if it is something else.
    """
    if isinstance(image, Mapping):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    if isinstance(image, (str, PurePath)):
        return decode_text(str(image)) or Path(image).read_bytes()
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if not isinstance(image, Image.Image):
        raise RowError(f"its image is {shorten(image)}; expected a picture, its bytes or its path")
    return encode(image)["bytes"]
