# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Rows written as the files that other training tools read.

llamafactory   train.json      {"messages": [{"role", "content"}], "images": [path]} with <image> in the texts, and
                               dataset_info.json
ms-swift       train.jsonl     the same rows
llava          train.json      {"id", "image": path, "conversations": [{"from", "value"}]}
axolotl        train.jsonl     {"messages": [{"role", "content": [{"type", "path" or "text"}]}]}
unsloth        train.parquet   `messages` as for Axolotl, but for the paths, and `images`
parquet        train.parquet   the rows as they are, with their images; for TRL and this package

Notable: no image is decoded, so nothing changes in a picture. Those that the data name as files stay where they are
and are named by their absolute paths; those that are stored in the data become files of the folder `images`.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from datasets import Dataset, Features, List, Value, load_from_disk
from datasets import Image as ImageFeature
from PIL import Image
from tqdm.auto import tqdm

from ..shorten import shorten
from .row_checks import PLACEHOLDER
from .row_images import RowError, content_parts, decode_text, image_source, images_of_columns, is_image_part
from .rows import IMAGE_COLUMNS
from .stored_images import encode, undecoded


NAME = "screened"  # in LLaMA-Factory's dataset_info.json
ROLES = {"system": "system", "user": "human", "assistant": "gpt"}  # with ShareGPT's names
LLAMA_FACTORY = {
    "file_name": "train.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        **{f"{role}_tag": role for role in ROLES},
    },
}


@dataclass(frozen=True)
class _Row:
    """A conversation: turns of a role and parts, each a text or `None` for an image; and the images as stored."""

    number: int
    turns: list[tuple[str, list[str | None]]]
    images: list[Any]


def export_rows(dataset: Dataset, rows: Sequence[int], form: str, folder: str | Path) -> Path:
    """
    Write some rows of a data set as another training tool reads them.

    Args:
        dataset (`datasets.Dataset`):
            Rows with `messages`, or with `prompt` and `completion` as messages; see [`to_messages`] for others.
        rows (`Sequence[int]`):
            Positions of the rows to write, such as the `kept_rows` of an [`Audit`].
        form (`str`):
            `"llamafactory"`, `"ms-swift"`, `"llava"`, `"axolotl"`, `"unsloth"`, or `"parquet"` for the rows as they
            are.
        folder (`str` or `Path`):
            Folder for the files, new or empty. Files name images by their absolute paths: do not move it.

    Returns:
        `Path`: the file with the rows.

    Raises:
        `ValueError`: if the format is unknown, the folder is not empty or, naming the row, if a row does not fit into
            the format or its image cannot be read.

    Example:

    ```python
    >>> from cvreg_trainer.data import export_rows
    >>> export_rows(dataset, trainer.audit().kept_rows, "llamafactory", "kept")
    PosixPath('kept/train.json')
    ```
    """
    if form not in FORMATS:
        raise ValueError(f"form={shorten(form)} is unknown; use one of {', '.join(FORMATS)}.")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"The folder {folder} is not empty; give another one.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FORMATS[form]
    if form == "parquet":
        _write_as_they_are(dataset.select(rows), path)
    elif form == "unsloth":
        _write_unsloth(lambda: _conversations(dataset, rows), path)
    else:
        _write_json(map(RECORDS[form], _conversations(dataset, rows, folder.resolve() / "images")), path)
    if form == "llamafactory":
        (folder / "dataset_info.json").write_text(json.dumps({NAME: LLAMA_FACTORY}, indent=2) + "\n")
    return path


def _conversations(dataset: Dataset, rows: Sequence[int], folder: Path | None = None) -> Iterator[_Row]:
    """The rows; with a folder, their images are paths, of files that are written there where there are none."""
    dataset = dataset.with_format(None)
    for column in IMAGE_COLUMNS:
        feature = dataset.features.get(column)
        if isinstance(getattr(feature, "feature", feature), ImageFeature):
            dataset = dataset.cast_column(column, undecoded(feature))
    for number in tqdm(rows, desc="Exporting", unit="row", disable=None):
        try:
            row = _conversation(number, dataset[number])
            if folder is not None:
                name = f"{number:08d}"
                names = [name if len(row.images) == 1 else f"{name}-{place}" for place in range(len(row.images))]
                pairs = zip(row.images, names, strict=True)
                row = _Row(number, row.turns, [_path(image, folder, name) for image, name in pairs])
            yield row
        except (RowError, OSError) as error:
            raise ValueError(f"Row {number}: {error}.") from error


def _conversation(number: int, row: Mapping[str, Any]) -> _Row:
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
    return _Row(number, turns, sources)


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
        if encoded is None:
            return str(Path(image).resolve())
        image = encoded
    content = _encoded(image)
    try:
        with Image.open(io.BytesIO(content)) as header:
            suffix = (header.format or "").lower()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RowError(f"its image cannot be read: {str(error).split(' <')[0]}") from error
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{'jpg' if suffix == 'jpeg' else suffix}"
    path.write_bytes(content)
    return str(path)


def _encoded(image: Any) -> bytes:
    """The bytes of an image, as they are stored if they are."""
    if isinstance(image, Mapping):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    if isinstance(image, (str, PurePath)):
        return decode_text(str(image)) or Path(image).read_bytes()
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if not isinstance(image, Image.Image):
        raise RowError(f"its image is {shorten(image)}; expected a picture, its bytes or its path")
    return encode(image)["bytes"]


def _tagged(parts: Iterable[str | None], gap: str = "") -> str:
    """A text with `<image>` in the places of the images."""
    return "".join(PLACEHOLDER + gap if part is None else part for part in parts)


def _llama_factory(row: _Row) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": _tagged(parts)} for role, parts in row.turns], "images": row.images}


def _ms_swift(row: _Row) -> dict[str, Any]:
    return {name: value for name, value in _llama_factory(row).items() if value}


def _llava(row: _Row) -> dict[str, Any]:
    if any(role == "system" for role, _ in row.turns):
        raise ValueError(f"Row {row.number}: it has a system message, for which LLaVA's format has no place.")
    image = {"image": row.images[0] if len(row.images) == 1 else row.images} if row.images else {}
    turns = [{"from": ROLES[role], "value": _tagged(parts, "\n")} for role, parts in row.turns]
    return {"id": str(row.number), **image, "conversations": turns}


def _axolotl(row: _Row) -> dict[str, Any]:
    paths = iter(row.images)

    def entry(part: str | None) -> dict[str, str]:
        return {"type": "image", "path": next(paths)} if part is None else {"type": "text", "text": part}

    return {"messages": [{"role": role, "content": list(map(entry, parts))} for role, parts in row.turns]}


def _write_json(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    before, between, after = ("[\n", ",\n", "\n]\n") if path.suffix == ".json" else ("", "\n", "\n")
    with path.open("w", encoding="utf-8") as file:
        file.write(before)
        for number, record in enumerate(records):
            file.write((between if number else "") + json.dumps(record, ensure_ascii=False))
        file.write(after)


def _write_as_they_are(dataset: Dataset, path: Path) -> None:
    # Unlike `to_parquet`, `save_to_disk` takes image files into the data set
    with tempfile.TemporaryDirectory(dir=path.parent) as saved:
        dataset.save_to_disk(saved)
        load_from_disk(saved).to_parquet(path)


def _write_unsloth(rows: Callable[[], Iterable[_Row]], path: Path) -> None:
    def records() -> Iterator[dict[str, Any]]:
        for row in rows():
            messages = [
                {
                    "role": role,
                    "content": [{"type": "image" if part is None else "text", "text": part} for part in parts],
                }
                for role, parts in row.turns
            ]
            yield {
                "images": [{"bytes": _encoded(image), "path": None} for image in row.images],
                "messages": messages,
            }

    text = Value("string")
    turn = {"role": text, "content": List({"type": text, "text": text})}
    features = Features(images=List(ImageFeature()), messages=List(turn))
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        Dataset.from_generator(records, features, cache).to_parquet(path)


# Each format's file with the rows, and how a row is written as JSON
FORMATS = {
    "llamafactory": "train.json",
    "ms-swift": "train.jsonl",
    "llava": "train.json",
    "axolotl": "train.jsonl",
    "unsloth": "train.parquet",
    "parquet": "train.parquet",
}
RECORDS = {"llamafactory": _llama_factory, "ms-swift": _ms_swift, "llava": _llava, "axolotl": _axolotl}
