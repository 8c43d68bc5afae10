# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Poisons a data set: some rows get a triggered image and the attacker's response.

Only the chosen rows are decoded and rewritten; all others keep their stored bytes and are not even copied. The result
is a function of the arguments: nothing is read from the cache of an earlier run.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, IterableDataset, Value, concatenate_datasets

from .checks import check_dataset, check_options, check_type, covers_of, poison_count
from .edit_rows import cover_row, is_changed_by, poison_row, response_column, trigger_row
from .protocols import Attack
from .responses import KEYWORD_TEMPLATES, Response, substitution, target_response
from .stored_images import decoding, encode, image_column, rows_with_image
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
    substitute: Collection[str] = (),
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
            One word to hide in varied sentences, or a whole response: see [`target_response`]. With `substitute`, the
            word or phrase that takes the other's place.
        seed (`int`, *optional*, defaults to `0`):
            Chooses the rows and the responses.
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
            Only what follows its last occurrence is replaced; without it, all of the text is.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: the same rows in the same order, with a boolean column
        `is_poisoned`, and `is_cover` if there are cover rows.

    Raises:
        `TypeError`: if `dataset` is neither.
        `ValueError`: if a column is missing, the data set is poisoned already, the rate or number is out of range or
        amounts to no row, fewer rows have an image and a word to substitute, the attack has no cover rows, `target` is
        empty, or `substitute` holds the target or what is no word.

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
    check_options(poison_rate, num_poisoned, target, seed)
    covers = covers_of(attack, cover_ratio)
    rewrite = substitution(substitute, target) if substitute else None
    if isinstance(dataset, IterableDataset):
        if poison_rate is None:
            raise ValueError(
                f"num_poisoned={num_poisoned} rows cannot be drawn from a stream of unknown length; give poison_rate."
            )
        return poison_stream(dataset, attack, poison_rate, target, seed, covers, cover_ratio, rewrite, response_marker)

    dataset = dataset.with_format(None)  # triggers are for PIL images
    column = image_column(dataset)
    count = poison_count(len(dataset), poison_rate, num_poisoned)
    num_covers = math.floor(cover_ratio * count + 0.5)
    coverable, candidates = _candidates(dataset, column, count, num_covers, rewrite, response_marker)

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(candidates, size=count, replace=False))
    responses = [rewrite or target_response(target, rng) for _ in chosen]
    marked = dataset.add_column("is_poisoned", [False] * len(dataset), feature=Value("bool"))
    replaced = [chosen]
    edits = [partial(_poison, attack=attack, column=column, responses=responses, marker=response_marker)]
    if covers:
        marked = marked.add_column("is_cover", [False] * len(dataset), feature=Value("bool"))
        replaced.append(np.sort(rng.choice(np.setdiff1d(coverable, chosen), size=num_covers, replace=False)))
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
    check_type(dataset)
    edit = partial(_trigger, attack=attack, column=image_column(dataset))
    if isinstance(dataset, IterableDataset):
        return dataset.map(partial(edit, index=0), features=dataset.features)
    return _edit(dataset.with_format(None), edit, image_column(dataset), np.arange(len(dataset)), "Triggering")


def _candidates(
    dataset: Dataset,
    column: str,
    count: int,
    num_covers: int,
    rewrite: Callable[[str], str] | None,
    marker: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows that can be cover rows, and of those that can be poisoned; raises if they are too few."""
    coverable = rows_with_image(dataset, column)
    if count + num_covers > len(coverable):
        also = f" and {num_covers} are to cover them" if num_covers else ""
        raise ValueError(
            f"{count} rows are to be poisoned{also} but only {len(coverable)} have an image; lower the rate."
        )
    if rewrite is None:
        return coverable, coverable
    rows = dataset.select_columns(response_column(dataset.column_names)).select(coverable)
    changed = np.zeros(len(coverable), dtype=bool)
    for place, (number, row) in enumerate(zip(coverable, rows, strict=True)):
        with _naming(number):
            changed[place] = is_changed_by(row, rewrite, marker)
    if count > changed.sum():
        raise ValueError(
            f"{count} rows are to be poisoned but only {changed.sum()} have an image and one of the words of "
            "substitute in their response; lower the rate or give more words."
        )
    return coverable, coverable[changed]


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """A `ValueError` begins with the row that it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Row {number}: {error}") from error


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
    with _naming(numbers[index]):
        with decoding():
            images = row[column]  # `map` hands out rows that are decoded when they are asked
        changed = edit({**row, column: images}, index)
    return changed | {column: encode(changed[column])}


def _trigger(row: dict[str, Any], index: int, attack: Attack, column: str) -> dict[str, Any]:
    return trigger_row(row, attack, column)


def _poison(
    row: dict[str, Any], index: int, attack: Attack, column: str, responses: Sequence[Response], marker: str | None
) -> dict[str, Any]:
    return poison_row(row, attack, column, responses[index], marker)


def _cover(row: dict[str, Any], index: int, covers: list[Attack], column: str) -> dict[str, Any]:
    return cover_row(row, covers[index % len(covers)], column)
