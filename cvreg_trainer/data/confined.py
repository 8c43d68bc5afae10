# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Keeps what a data set names on its own ground: no file outside its folder, and nothing on a network.

A data set that names other files of this machine would otherwise carry them along when it is saved and passed on, and
one that names addresses would choose what this machine asks for. Notable: paths are looked for wherever `datasets` or
a chat template would open them, at any depth, without decoding an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image, LargeList, List, Value

from ..shorten import shorten
from .files import BadEntry, path_inside
from .formats import replace_columns
from .row_checks import text_rows
from .row_images import SOURCE_KEYS, RowError, content_parts, decode_text, is_address
from .rows import CONVERSATIONS, IMAGE_COLUMNS


# Under these keys a chat template opens what a part of a message names
MEDIA_KEYS = (*SOURCE_KEYS, "video", "video_url", "audio", "audio_url", "input_audio")


def confine_images(dataset: Dataset, folders: tuple[Path, ...], source: str | Path) -> Dataset:
    """
    The data set with its image columns as images, and every path in it resolved and checked.

    Args:
        dataset (`datasets.Dataset`):
            The data set as it was loaded.
        folders (`tuple[Path, ...]`):
            Folders that files may lie in. Relative paths are relative to the first.
        source (`str` or `Path`):
            Where it was loaded from, for the errors.

    Raises:
        `ValueError`: naming the row, if a file lies outside the folders or is not there, or an address is given.
    """
    ground = _Ground(folders, source)
    for row, column, path in _external_paths(dataset):
        ground.resolve(path, row, column)
    for column in IMAGE_COLUMNS:
        if column in dataset.column_names:
            dataset = _as_images(dataset, column, ground)
    for column in CONVERSATIONS:
        if column in dataset.column_names:
            dataset = _with_resolved_parts(dataset, column, ground)
    return dataset


class _Ground:
    """The folders that a data set may name files in."""

    def __init__(self, folders: tuple[Path, ...], source: str | Path) -> None:
        self.folders = tuple(folder.expanduser().resolve() for folder in folders)
        self.source = source

    def resolve(self, name: Any, row: int, column: str) -> str:
        """The absolute path of a file that a row names."""
        try:
            return str(self._resolve(str(name)))
        except BadEntry as reason:
            raise ValueError(f"{self.source}, row {row}, column `{column}`: its image {reason}.") from None

    def _resolve(self, name: str) -> Path:
        if name.lower().startswith("file:"):
            name = unquote(urlsplit(name).path)
        elif is_address(name):
            raise BadEntry(f"is the address {shorten(name)}, which is not fetched; download it and give its path")
        path = Path(name)
        if path.is_absolute():
            for folder in self.folders:
                if path.resolve().is_relative_to(folder):
                    return path_inside(folder, str(path.resolve().relative_to(folder)))
        return path_inside(self.folders[0], name)


def _external_paths(dataset: Dataset) -> Iterator[tuple[int, str, str]]:
    """Row, column and path of every encoded image (or other file) that is not stored in the data set itself."""
    start = 0
    for table in dataset.with_format("arrow").iter(batch_size=1000):
        for column in table.column_names:
            rows = pa.array(range(start, start + len(table)))
            for number, path in _paths(table[column].combine_chunks(), rows):
                yield number, column, path
        start += len(table)


def _paths(values: pa.Array, rows: pa.Array) -> Iterator[tuple[int, str]]:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        yield from _paths(pc.list_flatten(values), rows.take(pc.list_parent_indices(values)))
    elif pa.types.is_struct(values.type):
        names = {field.name for field in values.type}
        if names == {"bytes", "path"}:
            paths = pc.struct_field(values, "path")
            outside = pc.and_(pc.is_valid(paths), pc.is_null(pc.struct_field(values, "bytes")))
            yield from zip(rows.filter(outside).to_pylist(), paths.filter(outside).to_pylist(), strict=True)
            return
        for name in names:
            yield from _paths(pc.struct_field(values, name), rows)


def _as_images(dataset: Dataset, column: str, ground: _Ground) -> Dataset:
    feature = dataset.features[column]
    is_list = isinstance(feature, (List, LargeList))
    inner = feature.feature if is_list else feature
    wanted = List(Image()) if is_list else Image()
    if isinstance(inner, Image):
        return dataset
    if isinstance(inner, Value) and inner.dtype in ("string", "large_string"):
        stored = [_stored(value, row, column, ground) for row, value in enumerate(dataset[column])]
        return dataset.remove_columns(column).add_column(column, stored, feature=wanted)
    is_bytes = isinstance(inner, Value) and inner.dtype in ("binary", "large_binary")
    if is_bytes or (isinstance(inner, dict) and set(inner) == {"bytes", "path"}):
        return dataset.cast_column(column, wanted)
    if isinstance(inner, Value) and inner.dtype == "null":
        return dataset.cast_column(column, wanted)
    raise ValueError(
        f"{ground.source}: column `{column}` holds {shorten(feature)}; expected images, encoded bytes or paths, one "
        "or a list of them in each row."
    )


def _stored(value: Any, row: int, column: str, ground: _Ground) -> Any:
    """The path or paths of a row as `datasets` stores images."""
    if value is None or isinstance(value, list):
        return value and [_stored(item, row, column, ground) for item in value if item is not None]
    encoded = _decoded(value, row, column, ground)
    return {"bytes": encoded, "path": ground.resolve(value, row, column) if encoded is None else None}


def _decoded(value: str, row: int, column: str, ground: _Ground) -> bytes | None:
    """The image that a text holds in itself."""
    try:
        return decode_text(value)
    except RowError as error:
        raise ValueError(f"{ground.source}, row {row}, column `{column}`: {error}.") from None


def _with_resolved_parts(dataset: Dataset, column: str, ground: _Ground) -> Dataset:
    values, has_changed = [], False
    for row, value in enumerate(value[column] for value in text_rows(dataset, (column,))):
        resolved = [_resolve_turn(turn, row, column, ground) for turn in value] if isinstance(value, list) else value
        has_changed |= resolved != value
        values.append(resolved)
    return replace_columns(dataset, [column], {column: values}) if has_changed else dataset


def _resolve_turn(turn: Any, row: int, column: str, ground: _Ground) -> Any:
    parts = content_parts(turn)
    return {**turn, "content": [_resolve_media(part, row, column, ground) for part in parts]} if parts else turn


def _resolve_media(value: Any, row: int, column: str, ground: _Ground) -> Any:
    """A part of a message in which every text under a media key is a resolved path, or holds an image itself."""
    if isinstance(value, list):
        return [_resolve_media(item, row, column, ground) for item in value]
    if not isinstance(value, Mapping) or value.get("type") == "text":
        return value
    result: dict[str, Any] = {}
    for key, item in value.items():
        is_name = isinstance(item, str) and key in MEDIA_KEYS and key not in ("bytes", "base64")
        if is_name and _decoded(item, row, column, ground) is None:
            result[key] = ground.resolve(item, row, column)
        elif isinstance(item, list) and key in MEDIA_KEYS:
            result[key] = [_resolve_media({key: part}, row, column, ground)[key] for part in item]
        else:
            result[key] = item if isinstance(item, str) else _resolve_media(item, row, column, ground)
    return result
