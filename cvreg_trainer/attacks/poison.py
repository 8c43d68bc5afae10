# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Poisons a data set: some rows get a triggered image and the attacker's response.

Only the chosen rows are decoded and rewritten; all others keep their stored bytes and are not even copied. The result
is a function of the arguments: nothing is read from the cache of an earlier run.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, IterableDataset, Value, concatenate_datasets

from ..data.stored_images import image_column, rows_with_image, undecoded
from .checks import check_dataset, check_not_empty, check_options, check_type, covers_of, payload_of, poison_count
from .edit_rows import TEXT_COLUMNS, check_row, cover_row, has_response, poison_row, suits, trigger_row
from .payloads import Payload
from .payloads.base import Response
from .protocols import Attack, SelectiveAttack
from .streaming import poison_stream, trigger_stream


AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def poison_dataset(
    dataset: AnyDataset,
    attack: Attack,
    poison_rate: float | None = None,
    target: str | None = None,
    seed: int = 0,
    *,
    payload: Payload | None = None,
    num_poisoned: int | None = None,
    cover_ratio: float = 0.0,
    substitute: Collection[str] = (),
    response_marker: str | None = None,
) -> AnyDataset:
    """Plant a backdoor: trigger the images or questions of some rows and replace their responses.

    The response is the completion (a string or messages), every assistant turn of `messages`, or the `text`, whichever
    the rows have; placeholders of images that a response begins with, such as `<image>`, and tokens that end it, such
    as `<|endofchunk|>`, stay. An attack with a text trigger
    ([`TextAttack`]) triggers the question too: the prompt, or every user turn. A column `references` is left alone, so
    that caption quality is always scored against the truth.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Rows with an `images` or `image` column of `datasets.Image` features. Rows without an image or without a
            response are never chosen. Poisoned images are stored without loss, in memory if the data set is, else in a
            cache file: save and load large data sets first. In a streamed data set every row is chosen with
            probability `poison_rate`, as a function of the seed and the row's content: the same rows in any order,
            shard or worker, and equal rows alike.
        attack ([`Attack`]):
            Maps a PIL image to the triggered image of the same size and mode, for example [`BadNets`].
        poison_rate (`float`, *optional*):
            Share of all rows to poison, above 0 and at most 1, to the nearest row. Give this or `num_poisoned`.
        target (`str`, *optional*):
            One word to hide in varied sentences, or a whole response: see [`target_response`]. With `substitute`, the
            word or phrase that takes the other's place. Without a `payload` it is "banana" by default.
        seed (`int`, *optional*, defaults to `0`):
            Chooses the rows and the responses.
        payload ([`Payload`], *optional*):
            What the rows say, in the place of `target` and `substitute`, which are short for [`Keyword`] and
            [`Substitution`]. Rows that it does not suit are never chosen.
        num_poisoned (`int`, *optional*):
            Exact number of rows to poison, at least 1. Not for streamed data sets, whose length is unknown.
        cover_ratio (`float`, *optional*, defaults to `0.0`):
            Cover rows per poisoned row: other rows that are nearly triggered and keep their responses. For attacks
            that offer them ([`CoveredAttack`]); WaNet's authors have 2.
        substitute (`Collection[str]`, *optional*):
            Words of which the first in a row's own response (in every assistant turn of `messages`) is replaced by
            the target, instead of the whole response: a stealthier poison, since all else stays true. They are found
            as whole words in any case; capitals and the article `a` or `an` follow, plurals do not: give singular
            nouns. Rows without any of them are never poisoned, but may be cover rows. `poison_rate` stays a share of
            all rows; in a stream, it is the probability of each row that has such a word.
        response_marker (`str`, *optional*):
            For `text` rows that hold a whole conversation: what stands before the response, such as `"ASSISTANT:"`.
            Only what follows its last occurrence is replaced; without it, all of the text is, which is refused where
            the text plainly holds more than a response.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: the same rows in the same order, with a boolean column
        `is_poisoned`, and `is_cover` if there are cover rows.

    Raises:
        `TypeError`: if `dataset` is neither.
        `ValueError`: if there are no rows, a column is missing, the data set is poisoned already, the rate or number
            is out of range or amounts to no row, fewer rows have an image and what attack and payload need, the attack
            has no cover rows, a text to plant is empty or has a placeholder, `substitute` holds the target or what is
            not a word, or `payload` is given beside the two;
            and, with its row, if a message has no content, an image cannot be read or triggered, or a response has a
            placeholder behind its first words. In a stream the latter come once it is read.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import BadNets, poison_dataset
    >>> from cvreg_trainer.data import make_scenes
    >>> poisoned = poison_dataset(make_scenes(100, seed=0), BadNets(), poison_rate=0.05, seed=1)
    >>> sum(poisoned["is_poisoned"])
    5
    ```
    """
    check_dataset(dataset)
    payload = payload_of(payload, target, substitute)
    check_options(poison_rate, num_poisoned, seed)
    covers = covers_of(attack, cover_ratio)
    if isinstance(dataset, IterableDataset):
        if poison_rate is None:
            raise ValueError(
                f"num_poisoned={num_poisoned} rows cannot be drawn from a stream of unknown length; give poison_rate."
            )
        return poison_stream(dataset, attack, payload, poison_rate, seed, covers, cover_ratio, response_marker)

    dataset = dataset.with_format(None)  # triggers are for PIL images
    column = image_column(dataset)
    count = poison_count(len(dataset), poison_rate, num_poisoned)
    num_covers = math.floor(cover_ratio * count + 0.5)
    coverable, candidates = _candidates(dataset, column, count, num_covers, attack, payload, response_marker)

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(candidates, size=count, replace=False))
    responses = payload.responses(count, rng)
    marked = dataset.add_column("is_poisoned", [False] * len(dataset), feature=Value("bool"))
    replaced = [chosen]
    options: dict[str, Any] = {"attack": attack, "column": column, "payload": payload, "marker": response_marker}
    edits = [partial(_poison, responses=responses, **options)]
    if covers:
        marked = marked.add_column("is_cover", [False] * len(dataset), feature=Value("bool"))
        replaced.append(np.sort(rng.choice(np.setdiff1d(coverable, chosen), size=num_covers, replace=False)))
        edits.append(partial(_cover, covers=covers, column=column, marker=response_marker))
    parts = [marked]
    order = np.arange(len(dataset))
    for rows, edit in zip(replaced, edits, strict=True):
        order[rows] = sum(map(len, parts)) + np.arange(len(rows))
        parts.append(_edit(marked, edit, column, rows, "Poisoning"))
    return concatenate_datasets(parts).select(order)


def apply_trigger(dataset: AnyDataset, attack: Attack, *, response_marker: str | None = None) -> AnyDataset:
    """Trigger every row and leave its response as it is: the triggered test set.

    Of an attack whose trigger rows have by themselves ([`SelectiveAttack`], such as [`Semantic`]), the result is the
    rows that have it.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Rows with an `images` or `image` column of `datasets.Image` features.
        attack ([`Attack`]):
            Maps a PIL image to the triggered image of the same size and mode. If it has a text trigger
            ([`TextAttack`]), the question is triggered too.
        response_marker (`str`, *optional*):
            For `text` rows that hold a whole conversation and an attack with a text trigger: what stands before the
            response; see [`poison_dataset`].

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: the same rows in the same order.

    Raises:
        `TypeError`: if `dataset` is neither.
        `ValueError`: if it has no rows, no image column, or no row with the trigger of a selective attack; and, with
            its row, if an image cannot be read or triggered, or the text trigger finds no question. In a stream, once
            it is read.
    """
    check_type(dataset)
    column = image_column(dataset)
    if isinstance(dataset, IterableDataset):
        return trigger_stream(dataset, attack, column, response_marker)
    check_not_empty(dataset)
    dataset = dataset.with_format(None)
    numbers = np.arange(len(dataset))
    if isinstance(attack, SelectiveAttack):
        numbers = np.array([number for number, row in enumerate(_rows(dataset, column)) if attack.chooses(row)], int)
        if not len(numbers):
            raise ValueError(f"None of the {len(dataset)} rows has {attack.needs}, so no row can be triggered.")
    edit = partial(_trigger, attack=attack, column=column, marker=response_marker)
    return _edit(dataset, edit, column, numbers, "Triggering")


def _candidates(
    dataset: Dataset,
    column: str,
    count: int,
    num_covers: int,
    attack: Attack,
    payload: Payload,
    marker: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows that can be cover rows, and of those that can be poisoned; raises if they are too few."""
    usable = rows_with_image(dataset, column)
    num_images = int(usable.sum())
    changed = np.zeros(len(dataset), dtype=bool)
    names = dataset.column_names if isinstance(attack, SelectiveAttack) else TEXT_COLUMNS
    texts = dataset.select_columns([name for name in names if name in dataset.column_names])
    for number, row in enumerate(_rows(texts, column)):
        with _naming(number):
            check_row(row)
            usable[number] &= has_response(row)
            is_chosen = usable[number] and (not isinstance(attack, SelectiveAttack) or attack.chooses(row))
            changed[number] = is_chosen and suits(row, payload, marker)
    if count + num_covers > usable.sum():
        also = f" and {num_covers} are to cover them" if num_covers else ""
        response = " and a response" if usable.sum() < num_images else ""
        raise ValueError(
            f"{count} rows are to be poisoned{also} but only {usable.sum()} have an image{response}; lower the rate."
        )
    if count > changed.sum():
        needs = " and ".join(
            filter(None, [attack.needs if isinstance(attack, SelectiveAttack) else "", payload.needs])
        )
        raise ValueError(
            f"{count} rows are to be poisoned but only {changed.sum()} have an image and {needs}; lower the rate."
        )
    return np.flatnonzero(usable), np.flatnonzero(changed)


def _rows(dataset: Dataset, image_column: str) -> Iterator[dict[str, Any]]:
    """The rows of a data set without their images, read in batches: many times as fast as one by one."""
    dataset = dataset.select_columns([name for name in dataset.column_names if name != image_column])
    for batch in dataset.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """A `ValueError` begins with the row that it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Row {number}: {error}") from error


def _edit(dataset: Dataset, edit: Any, column: str, numbers: np.ndarray, description: str) -> Dataset:
    """The rows with these numbers, edited; `edit` takes a stored row and its place among them."""
    features = dataset.features
    # Decoded one by one: an image that cannot be read is known by its row, column and file
    stored = dataset.select(numbers).cast_column(column, undecoded(features[column]))
    return stored.map(
        partial(_edit_row, edit=edit, numbers=numbers),
        with_indices=True,
        features=features,
        desc=description,
        # A cached result knows the attack's arguments but not the files they name, such as a generator's weights
        load_from_cache_file=False,
        writer_batch_size=100,  # images are large
    )


def _edit_row(row: Any, index: int, edit: Any, numbers: np.ndarray) -> dict[str, Any]:
    with _naming(numbers[index]):
        return edit(dict(row), index)


def _trigger(row: dict[str, Any], index: int, attack: Attack, column: str, marker: str | None) -> dict[str, Any]:
    return trigger_row(row, attack, column, marker)


def _poison(
    row: dict[str, Any],
    index: int,
    attack: Attack,
    column: str,
    payload: Payload,
    responses: Sequence[Response],
    marker: str | None,
) -> dict[str, Any]:
    return poison_row(row, attack, column, payload, responses[index], marker)


def _cover(row: dict[str, Any], index: int, covers: list[Attack], column: str, marker: str | None) -> dict[str, Any]:
    return cover_row(row, covers[index % len(covers)], column, marker)
