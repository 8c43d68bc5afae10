# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Wraps any collator: names the rows of a batch, shows strong views of their images, and leaves flagged rows out.

A row is known by its content, not by its number: the same for map-style and streamed data, in any order, process and
data loader worker, and after a resume. Equal rows share their fate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch

from ..perturbations.strong import strong_view
from ..rows import copy_row, replace_images, row_digest


# What the collator adds to a batch, and no model knows
SCREENING_KEYS = ("row_id", "is_early")


class DataCollatorForScreening:
    """
    Data collator that adds `row_id` to each batch of another collator, the first 8 bytes of [`row_digest`] as a signed
    integer, and leaves flagged rows out. While `shows_views` is set, images are replaced by strong views of them,
    which are a function of the seed, the epoch and the row's content.

    Of a batch of flagged rows only, one row is kept, with no label supervised, since a batch cannot be empty.

    Args:
        inner (`Callable[[list], Mapping]`):
            Collator to wrap.
        capacity (`int`):
            Largest number of rows that will ever be flagged.
        seed (`int`):
            Seed of the views.
        shows_views (`bool`):
            Whether to begin with strong views.
    """

    def __init__(self, inner: Callable[[list[Any]], Any], capacity: int, seed: int, shows_views: bool) -> None:
        self.inner = inner
        self.seed = seed
        # Shared memory: persistent workers keep their copy of this object
        self._flagged = torch.zeros(max(1, capacity), dtype=torch.int64).share_memory_()
        self._count = torch.zeros((), dtype=torch.int64).share_memory_()
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._shows_views = torch.tensor(shows_views).share_memory_()

    @property
    def shows_views(self) -> bool:
        """Whether images are replaced by strong views."""
        return bool(self._shows_views)

    @shows_views.setter
    def shows_views(self, value: bool) -> None:
        self._shows_views.fill_(value)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose views are drawn; running workers see it too."""
        self._epoch.fill_(int(epoch))

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
            `dict[str, Any]`: what the inner collator gives for the rows that are not flagged, `row_id`, int64 of
            shape `(B,)`, and `is_early`, bool of shape `(B,)`: whether the batch was made before the cut.

        Raises:
            `ValueError`: if the inner collator makes no labels, or not one row of them for each row.
        """
        rows = list(examples)
        digests = [row_digest(row) for row in rows]
        ids = torch.tensor([int.from_bytes(digest[:8], "little", signed=True) for digest in digests])
        kept = (~self.is_flagged(ids)).nonzero().flatten().tolist()
        is_empty = not kept
        kept = kept or [0]
        # Copies: a collator may change its rows, which would be renamed by that
        show = self._view if self.shows_views else lambda row, _: copy_row(row)
        batch = dict(self.inner([show(rows[place], digests[place]) for place in kept]))
        if "labels" not in batch or len(batch["labels"]) != len(kept):
            raise ValueError(
                f"The data collator made no `labels` with one row for each of its {len(kept)} rows, which screening "
                "needs in order to leave rows out. Return them from the data collator, or set `screening='off'`."
            )
        if is_empty:
            silence_rows(batch, torch.ones(1, dtype=torch.bool))
        return {**batch, "row_id": ids[kept], "is_early": torch.full((len(kept),), self.shows_views)}

    def _view(self, row: Any, digest: bytes) -> Any:
        state = hashlib.blake2b(f"{self.seed} {int(self._epoch)} ".encode() + digest, digest_size=16).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(state, "big")))
        return replace_images(row, lambda image: strong_view(image, rng))


def silence_rows(batch: dict[str, Any], is_silent: torch.Tensor) -> None:
    """Take some rows of a batch out of the loss, in place: out of the labels, and out of the rows with two views."""
    batch["labels"] = batch["labels"].masked_fill(is_silent.unsqueeze(1), -100)
    if "has_image" in batch:
        batch["has_image"] = batch["has_image"] & ~is_silent
