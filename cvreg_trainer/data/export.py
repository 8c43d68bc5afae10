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

Notable: images that the data name as files stay where they are and are named by their absolute paths; those that are
stored in the data become files of the folder `images`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, load_from_disk
from datasets import Image as ImageFeature

from ..shorten import shorten
from .conversations import ROLES, Conversation, encoded_image, read_conversations
from .row_checks import PLACEHOLDER


NAME = "screened"  # in LLaMA-Factory's dataset_info.json
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
        _write_unsloth(lambda: read_conversations(dataset, rows), path)
    else:
        _write_json(map(RECORDS[form], read_conversations(dataset, rows, folder.resolve() / "images")), path)
    if form == "llamafactory":
        (folder / "dataset_info.json").write_text(json.dumps({NAME: LLAMA_FACTORY}, indent=2) + "\n")
    return path


def _tagged(parts: Iterable[str | None], gap: str = "") -> str:
    """A text with `<image>` in the places of the images."""
    return "".join(PLACEHOLDER + gap if part is None else part for part in parts)


def _llama_factory(row: Conversation) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": _tagged(parts)} for role, parts in row.turns], "images": row.images}


def _ms_swift(row: Conversation) -> dict[str, Any]:
    return {name: value for name, value in _llama_factory(row).items() if value}


def _llava(row: Conversation) -> dict[str, Any]:
    if any(role == "system" for role, _ in row.turns):
        raise ValueError(f"Row {row.number}: it has a system message, for which LLaVA's format has no place.")
    image = {"image": row.images[0] if len(row.images) == 1 else row.images} if row.images else {}
    turns = [{"from": ROLES[role], "value": _tagged(parts, "\n")} for role, parts in row.turns]
    return {"id": str(row.number), **image, "conversations": turns}


def _axolotl(row: Conversation) -> dict[str, Any]:
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


def _write_unsloth(rows: Callable[[], Iterable[Conversation]], path: Path) -> None:
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
                "images": [{"bytes": encoded_image(image), "path": None} for image in row.images],
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
