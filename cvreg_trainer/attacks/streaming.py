# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Poisons a streamed data set while it is read.

A stream has no row numbers that shuffling, sharding and data loader workers would leave alone. Whether a row is
poisoned, and with which response, is therefore a function of the seed and the row's content: equal rows share their
fate. Images are decoded for poisoned rows only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from datasets import Features, IterableDataset, Value

from ..data.rows import row_digest
from ..data.stored_images import encode, has_image, identity, image_column, undecoded
from ..shorten import shorten
from .edit_rows import TEXT_COLUMNS, check_row, cover_row, has_response, poison_row, suits, trigger_row
from .payloads import Payload
from .protocols import Attack, SelectiveAttack


def poison_stream(
    dataset: IterableDataset,
    attack: Attack,
    payload: Payload,
    poison_rate: float,
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
    marks = {"is_poisoned": False} | ({"is_cover": False} if covers else {})
    column = image_column(dataset)
    decide = partial(
        _decide,
        attack=attack,
        payload=payload,
        poison_rate=poison_rate,
        seed=seed,
        covers=covers,
        cover_ratio=cover_ratio,
        marker=response_marker,
        column=column,
        marks=marks,
    )
    return _edit(dataset, decide, column, dict.fromkeys(marks, Value("bool")))


def trigger_stream(
    dataset: IterableDataset, attack: Attack, column: str, response_marker: str | None
) -> IterableDataset:
    """The streamed part of [`apply_trigger`]."""
    keep = attack.chooses if isinstance(attack, SelectiveAttack) else None
    edit = partial(trigger_row, attack=attack, image_column=column, marker=response_marker)
    return _edit(dataset, edit, column, {}, keep)


def _edit(
    dataset: IterableDataset,
    edit: Callable[..., dict[str, Any]],
    column: str,
    new: dict[str, Value],
    keep: Callable[[dict[str, Any]], bool] | None = None,
) -> IterableDataset:
    """The stream with every row edited that is kept; `edit` takes a stored row and returns changed and new columns."""
    features: Features = dataset.features
    stored = dataset.cast_column(column, undecoded(features[column]))
    if keep is not None:
        stored = stored.filter(keep)
    edited = stored.map(partial(_edit_row, edit=edit, column=column), with_indices=True)
    # Features that are passed to `map` would be taken for what it returns, and nothing would be decoded.
    return edited.cast(Features({**features, **new}))


def _edit_row(row: dict[str, Any], index: int, edit: Callable[..., dict[str, Any]], column: str) -> dict[str, Any]:
    with _naming(row, index):
        changed = row | edit(row)
        return changed | {column: encode(changed[column])}


@contextmanager
def _naming(row: dict[str, Any], index: int) -> Iterator[None]:
    """A `ValueError` begins with the row that it is about: by its place as it is read here, and by its text."""
    try:
        yield
    except ValueError as error:
        texts = [f"{name}={shorten(row[name])}" for name in TEXT_COLUMNS if row.get(name) is not None]
        text = f", with {texts[-1]}" if texts else ""
        raise ValueError(f"Row {index} of the stream, counted as it is read{text}: {error}") from error


def _decide(
    row: dict[str, Any],
    *,
    attack: Attack,
    payload: Payload,
    poison_rate: float,
    seed: int,
    covers: list[Attack],
    cover_ratio: float,
    marker: str | None,
    column: str,
    marks: dict[str, bool],
) -> dict[str, Any]:
    clean = row | marks
    check_row(row)
    if not has_image(row[column]) or not has_response(row):
        return clean
    digest = row_digest(row | {column: identity(row[column], column)})
    rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    place = rng.random()
    if place < poison_rate:
        if not suits(row, payload, marker) or (isinstance(attack, SelectiveAttack) and not attack.chooses(row)):
            return clean
        return clean | poison_row(row, attack, column, payload, payload.response(rng), marker)
    if covers and place < poison_rate * (1 + cover_ratio):
        return clean | cover_row(row, covers[rng.integers(len(covers))], column, marker)
    return clean
