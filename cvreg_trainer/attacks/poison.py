# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Poisons a data set: some rows get a triggered image and the attacker's response.

Only the chosen rows are decoded and rewritten; all others keep their stored bytes and are not even copied. The result
is a function of the arguments: nothing is read from the cache of an earlier run.
"""

import math
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Image, IterableDataset, Value, concatenate_datasets

from .edit_rows import RESPONSE_COLUMNS, cover_row, poison_row, trigger_row
from .protocols import Attack, CoveredAttack
from .responses import KEYWORD_TEMPLATES, target_response
from .stored_images import decoding, encode, image_column
from .streaming import poison_stream


__all__ = ["KEYWORD_TEMPLATES", "apply_trigger", "poison_dataset", "target_response"]

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def poison_dataset(
    dataset: AnyDataset,
    attack: Attack,
    poison_rate: float | None = None,
    target: str = "banana",
    seed: int = 0,
    *,
    num_poisoned: int | None = None,
    cover_ratio: float = 0.0,
    response_marker: str | None = None,
) -> AnyDataset:
    """Plant a dirty-label backdoor: trigger the images of some rows and replace their responses.

    The response is the completion (a string or messages), every assistant turn of `messages`, or the `text`, whichever
    the rows have; tokens that end a plain response, such as `<|endofchunk|>`, stay. An attack with a text trigger
    ([`TextAttack`]) triggers the question too: the prompt, or every user turn. A column `references` is left alone, so
    that caption quality is always scored against the truth.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Rows with an `images` or `image` column of `datasets.Image` features. Rows without an image are never
            chosen. Poisoned images are stored without loss, in memory if the data set is, else in a cache file: save
            and load large data sets first. In a streamed data set every row is chosen with probability `poison_rate`,
            as a function of the seed and the row's content: the same rows in any order, shard or worker, and equal
            rows alike.
        attack ([`Attack`]):
            Maps a PIL image to the triggered image of the same size and mode, for example [`BadNets`].
        poison_rate (`float`, *optional*):
            Share of all rows to poison, above 0 and at most 1, to the nearest row. Give this or `num_poisoned`.
        target (`str`, *optional*, defaults to `"banana"`):
            One word to hide in varied sentences, or a whole response: see [`target_response`].
        seed (`int`, *optional*, defaults to `0`):
            Chooses the rows and the responses.
        num_poisoned (`int`, *optional*):
            Exact number of rows to poison, at least 1. Not for streamed data sets, whose length is unknown.
        cover_ratio (`float`, *optional*, defaults to `0.0`):
            Cover rows per poisoned row: other rows that are nearly triggered and keep their responses. For attacks
            that offer them ([`CoveredAttack`]); WaNet's authors have 2.
        response_marker (`str`, *optional*):
            For `text` rows that hold a whole conversation: what stands before the response, such as `"ASSISTANT:"`.
            Only what follows its last occurrence is replaced; without it, all of the text is.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: the same rows in the same order, with a boolean column
        `is_poisoned`, and `is_cover` if there are cover rows.

    Raises:
        `TypeError`: if `dataset` is neither.
        `ValueError`: if a column is missing, the data set is poisoned already, the rate or number is out of range or
        amounts to no row, fewer rows have an image, the attack has no cover rows, or `target` is empty.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import BadNets, poison_dataset
    >>> from cvreg_trainer.data import make_scenes
    >>> poisoned = poison_dataset(make_scenes(100, seed=0), BadNets(), poison_rate=0.05, seed=1)
    >>> sum(poisoned["is_poisoned"])
    5
    ```
    """
    _check_dataset(dataset)
    _check_options(poison_rate, num_poisoned, target, seed)
    covers = _covers(attack, cover_ratio)
    if isinstance(dataset, IterableDataset):
        if poison_rate is None:
            raise ValueError(
                f"num_poisoned={num_poisoned} rows cannot be drawn from a stream of unknown length; give poison_rate."
            )
        return poison_stream(dataset, attack, poison_rate, target, seed, covers, cover_ratio, response_marker)

    dataset = dataset.with_format(None)  # triggers are for PIL images
    column = image_column(dataset)
    count = _poison_count(len(dataset), poison_rate, num_poisoned)
    num_covers = math.floor(cover_ratio * count + 0.5)
    candidates = _rows_with_image(dataset, column)
    if count + num_covers > len(candidates):
        also = f" and {num_covers} are to cover them" if covers else ""
        raise ValueError(
            f"{count} rows are to be poisoned{also} but only {len(candidates)} have an image; lower the rate."
        )

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(candidates, size=count, replace=False))
    responses = [target_response(target, rng) for _ in chosen]
    marked = dataset.add_column("is_poisoned", [False] * len(dataset), feature=Value("bool"))
    replaced = [chosen]
    edits = [partial(_poison, attack=attack, column=column, responses=responses, marker=response_marker)]
    if covers:
        marked = marked.add_column("is_cover", [False] * len(dataset), feature=Value("bool"))
        replaced.append(np.sort(rng.choice(np.setdiff1d(candidates, chosen), size=num_covers, replace=False)))
        edits.append(partial(_cover, covers=covers, column=column))
    parts = [marked]
    order = np.arange(len(dataset))
    for rows, edit in zip(replaced, edits, strict=True):
        order[rows] = sum(map(len, parts)) + np.arange(len(rows))
        parts.append(_edit(marked, edit, column, rows, "Poisoning"))
    return concatenate_datasets(parts).select(order)


def apply_trigger(dataset: AnyDataset, attack: Attack) -> AnyDataset:
    """Trigger every row and leave its response as it is: the triggered test set.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Rows with an `images` or `image` column of `datasets.Image` features.
        attack ([`Attack`]):
            Maps a PIL image to the triggered image of the same size and mode. If it has a text trigger
            ([`TextAttack`]), the question is triggered, too.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: the same rows in the same order.

    Raises:
        `TypeError`: if `dataset` is neither.
        `ValueError`: if it has no image column.
    """
    _check_type(dataset)
    edit = partial(_trigger, attack=attack, column=image_column(dataset))
    if isinstance(dataset, IterableDataset):
        return dataset.map(partial(edit, index=0), features=dataset.features)
    return _edit(dataset.with_format(None), edit, image_column(dataset), np.arange(len(dataset)), "Triggering")


def _edit(dataset: Dataset, edit: Any, column: str, numbers: np.ndarray, description: str) -> Dataset:
    """The rows with these numbers, edited; `edit` takes a decoded row and its place among them."""
    return dataset.select(numbers).map(
        partial(_edit_row, edit=edit, column=column, numbers=numbers),
        with_indices=True,
        features=dataset.features,
        desc=description,
        # A cached result knows the attack's arguments but not the files they name, such as a generator's weights
        load_from_cache_file=False,
        writer_batch_size=100,  # images are large
    )


def _edit_row(row: Any, index: int, edit: Any, column: str, numbers: np.ndarray) -> dict[str, Any]:
    try:
        with decoding():
            images = row[column]  # `map` hands out rows that are decoded when they are asked
        changed = edit({**row, column: images}, index)
    except ValueError as error:
        raise ValueError(f"Row {numbers[index]}: {error}") from error
    return changed | {column: encode(changed[column])}


def _trigger(row: dict[str, Any], index: int, attack: Attack, column: str) -> dict[str, Any]:
    return trigger_row(row, attack, column)


def _poison(
    row: dict[str, Any], index: int, attack: Attack, column: str, responses: list[str], marker: str | None
) -> dict[str, Any]:
    return poison_row(row, attack, column, responses[index], marker)


def _cover(row: dict[str, Any], index: int, covers: list[Attack], column: str) -> dict[str, Any]:
    return cover_row(row, covers[index % len(covers)], column)


def _check_type(dataset: Any) -> None:
    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise TypeError(f"dataset is a {type(dataset).__name__}, expected a `datasets.Dataset`: pass one split.")
    if dataset.features is None:
        raise ValueError("The features of the stream are unknown; name them with `dataset.cast(features)`.")


def _check_dataset(dataset: Any) -> None:
    _check_type(dataset)
    image_column(dataset)
    if not any(columns <= set(dataset.column_names) for columns in RESPONSE_COLUMNS):
        raise ValueError(
            f"The data set has the columns {dataset.column_names} and no response to replace; it needs `messages`, "
            "`text`, or `prompt` and `completion`."
        )
    for column in ("is_poisoned", "is_cover"):
        if column in dataset.column_names:
            raise ValueError(f"The data set has a column `{column}`: poison the clean data set instead.")


def _check_options(poison_rate: float | None, num_poisoned: int | None, target: str, seed: int) -> None:
    if not target.strip():
        raise ValueError(f"target={target!r} is empty; give a keyword or a whole response.")
    if seed < 0:
        raise ValueError(f"seed={seed} must not be negative.")
    if (poison_rate is None) == (num_poisoned is None):
        raise ValueError(f"poison_rate={poison_rate} and num_poisoned={num_poisoned}: give exactly one of the two.")
    if poison_rate is not None and not 0 < poison_rate <= 1:
        raise ValueError(f"poison_rate={poison_rate} must be above 0 and at most 1: it is a share, not a percentage.")


def _covers(attack: Attack, cover_ratio: float) -> list[Attack]:
    if not 0 <= cover_ratio < math.inf:
        raise ValueError(f"cover_ratio={cover_ratio} must be 0 or more: it is a number of rows per poisoned row.")
    if not cover_ratio:
        return []
    if not isinstance(attack, CoveredAttack):
        raise ValueError(f"cover_ratio={cover_ratio}: {type(attack).__name__} has no cover rows; leave it at 0.")
    return list(attack.covers)


def _poison_count(num_rows: int, poison_rate: float | None, num_poisoned: int | None) -> int:
    if num_poisoned is not None:
        if not 1 <= num_poisoned <= num_rows:
            raise ValueError(f"num_poisoned={num_poisoned} must be between 1 and the number of rows, {num_rows}.")
        return num_poisoned
    count = math.floor((poison_rate or 0) * num_rows + 0.5)
    if count == 0:
        raise ValueError(
            f"poison_rate={poison_rate} of {num_rows} rows is no row at all; raise it or use `num_poisoned`."
        )
    return count


def _rows_with_image(dataset: Dataset, column: str) -> np.ndarray:
    """Indices of the rows that have an image, found without decoding any."""
    present = []
    for table in dataset.select_columns([column]).with_format("arrow").iter(batch_size=256):
        values = table[column]
        if isinstance(dataset.features[column], Image):
            present.append(pc.is_valid(values).to_numpy())
        else:
            present.append(pc.fill_null(pc.list_value_length(values), 0).to_numpy() > 0)
    return np.flatnonzero(np.concatenate(present))
