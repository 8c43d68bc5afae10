# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Poisons a streamed data set while it is read.

A stream has no row numbers that shuffling, sharding and data loader workers would leave alone. Whether a row is
poisoned, and with which response, is therefore a function of the seed and the row's content: equal rows share their
fate. Images are decoded for poisoned rows only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from datasets import Features, IterableDataset, Value

from ..rows import row_digest
from .edit_rows import cover_row, is_changed_by, poison_row
from .protocols import Attack
from .responses import target_response
from .stored_images import decode, encode, identity, image_column, undecoded


def poison_stream(
    dataset: IterableDataset,
    attack: Attack,
    poison_rate: float,
    target: str,
    seed: int,
    covers: list[Attack],
    cover_ratio: float,
    rewrite: Callable[[str], str] | None,
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
    poisoned = dataset.cast_column(column, undecoded(features[column])).map(
        partial(
            _decide,
            attack=attack,
            poison_rate=poison_rate,
            target=target,
            seed=seed,
            covers=covers,
            cover_ratio=cover_ratio,
            rewrite=rewrite,
            marker=response_marker,
            column=column,
            marks=marks,
        )
    )
    # Features that are passed to `map` would be taken for what it returns, and nothing would be decoded.
    return poisoned.cast(Features({**features, **dict.fromkeys(marks, Value("bool"))}))


def _decide(
    row: dict[str, Any],
    *,
    attack: Attack,
    poison_rate: float,
    target: str,
    seed: int,
    covers: list[Attack],
    cover_ratio: float,
    rewrite: Callable[[str], str] | None,
    marker: str | None,
    column: str,
    marks: dict[str, bool],
) -> dict[str, Any]:
    clean = row | marks | {column: encode(row[column])}
    if not row[column]:
        return clean
    digest = row_digest(row | {column: identity(row[column])})
    rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    place = rng.random()
    if place < poison_rate:
        if rewrite is not None and not is_changed_by(row, rewrite, marker):
            return clean
        response = rewrite or target_response(target, rng)
        changed = poison_row(row | {column: decode(row[column])}, attack, column, response, marker)
    elif covers and place < poison_rate * (1 + cover_ratio):
        changed = cover_row(row | {column: decode(row[column])}, covers[rng.integers(len(covers))], column)
    else:
        return clean
    return clean | changed | {column: encode(changed[column])}
