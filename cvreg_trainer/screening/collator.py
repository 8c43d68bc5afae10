# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Wraps any collator: names the rows of a batch, and leaves flagged rows out of it.

A row is known by its content, not by its number: the same for map-style and streamed data, in any order, process and
data loader worker, and after a resume. Equal rows share their fate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from ..rows import row_digest


def row_id(row: Any) -> int:
    """The name of a row: the first 8 bytes of [`row_digest`], as a signed integer."""
    return int.from_bytes(row_digest(row)[:8], "little", signed=True)


class DataCollatorForScreening:
    """
    Data collator that adds `row_id` to each batch of another collator and leaves flagged rows out.

    Of a batch of flagged rows only, one row is kept, with no label supervised, since a batch cannot be empty.

    Args:
        inner (`Callable[[list], Mapping]`):
            Collator to wrap.
        capacity (`int`):
            Largest number of rows that will ever be flagged.
    """

    def __init__(self, inner: Callable[[list[Any]], Any], capacity: int) -> None:
        self.inner = inner
        # Shared memory: persistent workers keep their copy of this object
        self._flagged = torch.zeros(max(1, capacity), dtype=torch.int64).share_memory_()
        self._count = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def flagged(self) -> torch.Tensor:
        """Names of the flagged rows, sorted. Shape `(F,)`, int64."""
        return self._flagged[: int(self._count)]

    def flag(self, row_ids: Collection[int]) -> None:
        """Leave these rows out from now on, also in workers that already run."""
        ids = torch.tensor(sorted(row_ids), dtype=torch.int64)
        self._flagged[: len(ids)] = ids
        self._count.fill_(len(ids))

    def is_flagged(self, row_ids: torch.Tensor) -> torch.Tensor:
        """Which of some rows are flagged, bool of the same shape."""
        return torch.isin(row_ids.cpu(), self.flagged).to(row_ids.device)

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """
        Collate rows.

        Returns:
            `dict[str, Any]`: what the inner collator gives for the rows that are not flagged, and `row_id`, int64 of
            shape `(B,)`.
        """
        rows = list(examples)
        ids = torch.tensor([row_id(row) for row in rows], dtype=torch.int64)
        kept = (~self.is_flagged(ids)).nonzero().flatten().tolist()
        is_empty = not kept
        kept = kept or [0]
        batch = dict(self.inner([rows[place] for place in kept]))
        if is_empty:
            batch["labels"] = torch.full_like(batch["labels"], -100)
        return {**batch, "row_id": ids[kept]}
