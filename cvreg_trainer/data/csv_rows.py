# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Rows of CSV files, which hold nothing but texts.

Notable: `prompt` and `completion` become conversations, in which an image needs no place of its own. Plain text, as
BLIP-2 reads it, goes into a column `text`.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset, Value

from .formats import replace_columns


ROLES = {"prompt": "user", "completion": "assistant"}
# pandas takes "None" and "NA" for missing values, and answers such as "2" for numbers
OPTIONS: dict[str, Any] = {
    "keep_default_na": False,
    "converters": dict.fromkeys(("image", "file_name", "text", *ROLES), str),
}


def from_csv(dataset: Dataset) -> Dataset:
    """
    Rows as they stand in a CSV file, in the form of other rows.

    Args:
        dataset (`datasets.Dataset`):
            Rows with paths under `image`, or `file_name` as in the `metadata.csv` of a folder of images, and texts.

    Returns:
        `datasets.Dataset`: `prompt` and `completion` are conversations of one message, and an empty path is `None`, a
        row without an image.
    """
    columns = dataset.column_names
    if "file_name" in columns and "image" not in columns:
        dataset = dataset.rename_column("file_name", "image")
    if isinstance(dataset.features.get("image"), Value):
        dataset = replace_columns(dataset, ["image"], {"image": [path or None for path in dataset["image"]]})
    if not set(ROLES) <= set(columns):
        return dataset
    texts = {name: dataset[name] for name in ROLES}
    turns = {name: [_turn(role, text) for text in texts[name]] for name, role in ROLES.items()}
    return replace_columns(dataset, list(ROLES), turns)


def _turn(role: str, text: Any) -> list[dict[str, str]] | None:
    """A conversation of one message; `None` if its text is missing, which the check of the rows reports."""
    return None if text is None else [{"role": role, "content": str(text)}]
