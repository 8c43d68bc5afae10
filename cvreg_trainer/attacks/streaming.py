# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Poisons a streamed data set while it is read.

A stream has no row numbers that shuffling, sharding and data loader workers would leave alone. Whether a row is
poisoned, and with which response, is therefore a function of the seed and the row's content: equal rows share their
fate. Images are decoded for poisoned rows only.
"""

from functools import partial
from typing import Any

import numpy as np
from datasets import Features, Image, IterableDataset, List, Value

from ..rows import row_digest
from .edit_rows import cover_row, image_column, poison_row
from .protocols import Attack
from .responses import target_response


def poison_stream(
    dataset: IterableDataset,
    attack: Attack,
    poison_rate: float,
    target: str,
    seed: int,
    covers: list[Attack],
    cover_ratio: float,
    response_marker: str | None,
) -> IterableDataset:
    """The streamed part of [`poison_dataset`], which checks the arguments and describes them."""
    if poison_rate * (1 + cover_ratio) > 1:
        raise ValueError(
            f"poison_rate={poison_rate} with cover_ratio={cover_ratio} needs more than all rows; lower one of them."
        )
    column = image_column(dataset)
    features: Features = dataset.features
    marks = {"is_poisoned": False} | ({"is_cover": False} if covers else {})
    stored = features[column]
    undecoded = Image(decode=False) if isinstance(stored, Image) else List(Image(decode=False))
    poisoned = dataset.cast_column(column, undecoded).map(
        partial(
            _decide,
            attack=attack,
            poison_rate=poison_rate,
            target=target,
            seed=seed,
            covers=covers,
            cover_ratio=cover_ratio,
            marker=response_marker,
            column=column,
            marks=marks,
        ),
        features=Features({**features, column: undecoded, **dict.fromkeys(marks, Value("bool"))}),
    )
    return poisoned.cast_column(column, stored)


def _decide(
    row: dict[str, Any],
    *,
    attack: Attack,
    poison_rate: float,
    target: str,
    seed: int,
    covers: list[Attack],
    cover_ratio: float,
    marker: str | None,
    column: str,
    marks: dict[str, bool],
) -> dict[str, Any]:
    if not row[column]:
        return row | marks
    digest = row_digest(row | {column: _content(row[column])})
    rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    place = rng.random()
    if place < poison_rate:
        response = target_response(target, rng)
        changed = poison_row(_decoded(row, column), attack, column, response, marker)
    elif covers and place < poison_rate * (1 + cover_ratio):
        changed = cover_row(_decoded(row, column), covers[rng.integers(len(covers))], column)
    else:
        return row | marks
    return row | marks | changed | {column: _encoded(changed[column])}


def _content(stored: Any) -> Any:
    """What identifies stored images anywhere: their bytes, or their pixels where only a path is stored."""
    if isinstance(stored, list):
        return [_content(image) for image in stored]
    return stored["bytes"] if stored["bytes"] is not None else Image().decode_example(stored)


def _decoded(row: dict[str, Any], column: str) -> dict[str, Any]:
    stored = row[column]
    if isinstance(stored, list):
        return row | {column: [Image().decode_example(image) for image in stored]}
    return row | {column: Image().decode_example(stored)}


def _encoded(images: Any) -> Any:
    if isinstance(images, list):
        return [Image().encode_example(image) for image in images]
    return Image().encode_example(images)
