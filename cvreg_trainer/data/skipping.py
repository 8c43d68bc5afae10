# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Rows that cannot be trained on, left out before anything is trained, each with its reason.

Notable: every image is decoded once more for it. Whoever does not ask for this pays nothing, and gets an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from .broken_rows import row_problem


BLOCK = 1024  # rows that are handed to the threads at a time
NUM_SHOWN = 5


@dataclass(frozen=True)
class SkippedRows:
    """
    What was left out of a data set.

    Args:
        reasons (`Mapping[int, str]`, *optional*):
            What is wrong with each row, by its position in the data set that was given.
        num_rows (`int`, *optional*, defaults to `0`):
            Number of rows that were given.
    """

    reasons: Mapping[int, str] = field(default_factory=dict)
    num_rows: int = 0

    @cached_property
    def kept(self) -> list[int]:
        """`list[int]`: positions of the rows that are left."""
        return [number for number in range(self.num_rows) if number not in self.reasons]

    def given(self, number: int) -> int:
        """The position that a row which is left had in the data set that was given."""
        return self.kept[number] if self.reasons else number

    def __str__(self) -> str:
        shown = "; ".join(f"row {number}: {self.reasons[number]}" for number in list(self.reasons)[:NUM_SHOWN])
        more = f"; and {len(self.reasons) - NUM_SHOWN} more" if len(self.reasons) > NUM_SHOWN else ""
        return f"{len(self.reasons)} of {self.num_rows} rows cannot be trained on and were left out ({shown}{more})."

    def write(self, path: str | Path) -> None:
        """Write a line of JSON for each row, with `row` and `reason`."""
        lines = [json.dumps({"row": number, "reason": reason}) for number, reason in self.reasons.items()]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def skip_bad_rows(
    dataset: Any,
    source: str,
    check: Callable[[Any], Any] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    disable_tqdm: bool | None = None,
) -> tuple[Any, SkippedRows]:
    """
    A data set without the rows that cannot be trained on. Several processes share the work.

    Args:
        dataset (`datasets.Dataset` or `torch.utils.data.Dataset`):
            Rows with positions.
        source (`str`):
            What errors call it.
        check (`Callable[[Any], Any]`, *optional*):
            Raises a [`RowError`] for a row that cannot be trained on.
        collate (`Callable[[list], Any]`, *optional*):
            A collator that opens files by itself, called with every row.
        disable_tqdm (`bool`, *optional*):
            Whether to hide the progress bar.

    Returns:
        `tuple`: the rows that are left, in their order, and a [`SkippedRows`].

    Raises:
        `ValueError`: if no row is left, or the rows have no positions.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ValueError(
            f"`on_bad_row='skip'` reads every row before the training, and {source} is a stream. Set "
            "`on_bad_row='raise'`, and leave rows out with the stream's own `filter`."
        )
    state = PartialState()
    numbers = range(state.process_index, len(dataset), state.num_processes)
    problem = partial(row_problem, dataset, check=check, collate=collate)
    bar = tqdm(numbers, f"Reading {source}", disable=disable_tqdm or not state.is_main_process, leave=False)
    # Pillow decodes without the lock of Python; what data sets of the user's own do at once is not known
    is_plain = isinstance(dataset, Dataset) and dataset.format["type"] is None and collate is None
    found = zip(numbers, _map_in_threads(problem, bar) if is_plain else map(problem, bar), strict=True)
    bad = [(number, reason) for number, reason in found if reason is not None]
    reasons = dict(sorted(gather_object(bad) if state.num_processes > 1 else bad))
    skipped = SkippedRows(reasons, len(dataset))
    if not reasons:
        return dataset, skipped
    if not skipped.kept:
        raise ValueError(
            f"`on_bad_row='skip'` leaves nothing of {source}: none of its {len(dataset)} rows can be trained on. Row "
            f"0: {reasons[0]}."
        )
    if isinstance(dataset, Dataset):
        return dataset.select(skipped.kept), skipped
    return torch.utils.data.Subset(dataset, skipped.kept), skipped


def _map_in_threads(function: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[Any]:
    rest = iter(numbers)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while block := list(islice(rest, BLOCK)):
            yield from pool.map(function, block)
