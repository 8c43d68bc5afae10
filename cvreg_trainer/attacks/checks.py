# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What `poison_dataset` asks of its arguments, and the numbers of rows that follow from them."""

import math
from collections.abc import Collection
from typing import Any

from datasets import Dataset, IterableDataset

from ..data.stored_images import image_column
from ..shorten import shorten
from .edit_rows import RESPONSE_COLUMNS
from .payloads import Keyword, Payload, Substitution
from .protocols import Attack, CoveredAttack


DEFAULT_TARGET = "banana"


def check_type(dataset: Any) -> None:
    """Raises unless it is a data set or a stream of known features."""
    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise TypeError(f"dataset is a {type(dataset).__name__}, expected a `datasets.Dataset`: pass one split.")
    if dataset.features is None:
        raise ValueError("The features of the stream are unknown; name them with `dataset.cast(features)`.")


def check_not_empty(dataset: Dataset) -> None:
    """Raises if there are no rows."""
    if len(dataset) == 0:
        raise ValueError("The data set has no rows; check what it was loaded or filtered from.")


def check_dataset(dataset: Any) -> None:
    """Raises unless there are images to trigger and responses to replace, none of them poisoned before."""
    check_type(dataset)
    if isinstance(dataset, Dataset):
        check_not_empty(dataset)
    image_column(dataset)
    if not any(columns <= set(dataset.column_names) for columns in RESPONSE_COLUMNS):
        raise ValueError(
            f"The data set has the columns {shorten(dataset.column_names)} and no response to replace; it needs "
            "`messages`, `text`, or `prompt` and `completion`."
        )
    for column in ("is_poisoned", "is_cover"):
        if column in dataset.column_names:
            raise ValueError(f"The data set has a column `{column}`: poison the clean data set instead.")


def payload_of(payload: Payload | None, target: str | None, substitute: Collection[str]) -> Payload:
    """The payload, which `target` and `substitute` may describe; raises a `ValueError` if both are given."""
    if payload is None:
        target = DEFAULT_TARGET if target is None else target
        return Substitution(_words(substitute), target) if substitute else Keyword(target)
    if not isinstance(payload, Payload):
        raise TypeError(f"payload is a {type(payload).__name__}, expected a `Payload`, such as `Refusal()`.")
    if target is not None or substitute:
        name, value = ("substitute", substitute) if substitute else ("target", target)
        raise ValueError(
            f"{name}={shorten(value)} and payload={type(payload).__name__} are given; leave one of them out."
        )
    return payload


def _words(substitute: Collection[str]) -> tuple[str, ...]:
    # One string is refused by the payload, which says what to give
    return substitute if isinstance(substitute, str) else tuple(substitute)  # type: ignore[return-value]


def check_options(poison_rate: float | None, num_poisoned: int | None, seed: int) -> None:
    """Raises a `ValueError` that names the option."""
    if seed < 0:
        raise ValueError(f"seed={seed} must not be negative.")
    if (poison_rate is None) == (num_poisoned is None):
        raise ValueError(f"poison_rate={poison_rate} and num_poisoned={num_poisoned}: give exactly one of the two.")
    if poison_rate is not None and not 0 < poison_rate <= 1:
        raise ValueError(f"poison_rate={poison_rate} must be above 0 and at most 1: it is a share, not a percentage.")


def covers_of(attack: Attack, cover_ratio: float) -> list[Attack]:
    """The attack's triggers for cover rows; none where no cover rows are asked for."""
    if not 0 <= cover_ratio < math.inf:
        raise ValueError(f"cover_ratio={cover_ratio} must be 0 or more: it is a number of rows per poisoned row.")
    if not cover_ratio:
        return []
    if not isinstance(attack, CoveredAttack):
        raise ValueError(f"cover_ratio={cover_ratio}: {type(attack).__name__} has no cover rows; leave it at 0.")
    return list(attack.covers)


def poison_count(num_rows: int, poison_rate: float | None, num_poisoned: int | None) -> int:
    """Number of rows to poison, at least one."""
    if num_poisoned is not None:
        if not 1 <= num_poisoned <= num_rows:
            raise ValueError(f"num_poisoned={num_poisoned} must be between 1 and the number of rows, {num_rows}.")
        return num_poisoned
    count = math.floor((poison_rate or 0) * num_rows + 0.5)
    if count == 0:
        raise ValueError(
            f"poison_rate={poison_rate} of {num_rows} rows is less than one row; raise it or use `num_poisoned`."
        )
    return count
