# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Wraps any collator: names the rows of a batch, shows strong views of their images, and leaves flagged rows out.

A row is known by its content, not by its number: the same for map-style and streamed data, in any order, process and
data loader worker, and after a resume. Equal rows share their fate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...collators.batches import is_pixels, is_visual, same
from ...collators.seeded_views import SeededViews, has_image, holds_pixels
from ...data.rows import copy_row, find_images, replace_images, row_digest
from ...perturbations.strong import strong_view
from ...random_state import preserve_random_state
from .row_features import picture_features, row_features


# Keys that the collators here add to a batch, and that no model accepts
SCREENING_KEYS = ("row_id", "is_early", "row_values")


class DataCollatorForScreening:
    """
    Data collator that adds `row_id` to each batch of another collator, the first 8 bytes of [`row_digest`] as a signed
    integer, and leaves flagged rows out. While `shows_views` is set, images are replaced by strong views of them,
    which are a function of the seed, the epoch and the row's content: in the rows, or, where the inner collator takes
    the pixels from elsewhere (files that it opens, ready tensors), in its batch.

    If all rows of a batch are flagged, one is kept without any supervised label, since a batch cannot be empty.

    Args:
        inner (`Callable[[list], Mapping]`):
            Collator to wrap.
        capacity (`int`):
            Largest number of rows that will ever be flagged.
        seed (`int`):
            Seed of the views.
        shows_views (`bool`):
            Whether to begin with strong views.
        reads_rows (`bool`, *optional*, defaults to `True`):
            Whether the inner collator makes its pixels from the images in the rows; see [`finds_images_in_rows`].
    """

    def __init__(
        self,
        inner: Callable[[list[Any]], Any],
        capacity: int,
        seed: int,
        shows_views: bool,
        reads_rows: bool = True,
    ) -> None:
        self.inner = inner
        self.views = SeededViews(strong_view, seed)
        self.reads_rows = reads_rows
        # Shared memory: persistent workers keep their copy of this object
        self._flagged = torch.zeros(max(1, capacity), dtype=torch.int64).share_memory_()
        self._count = torch.zeros((), dtype=torch.int64).share_memory_()
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
        self.views.set_epoch(epoch)

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
            `ValueError`: if the inner collator makes no labels, or not one row of them for each row, or a view that is
                needed cannot be made.
        """
        rows = list(examples)
        digests = [row_digest(row) for row in rows]
        ids = torch.tensor([row_id(digest) for digest in digests], dtype=torch.int64)
        kept = (~self.is_flagged(ids)).nonzero().flatten().tolist()
        is_empty = not kept
        kept = kept or [0]
        batch = self._collate([rows[place] for place in kept], [digests[place] for place in kept])
        # There may be one more row: an image without labels, see `DataCollatorWithAnImage`
        if "labels" not in batch or len(batch["labels"]) - len(kept) not in (0, 1):
            raise ValueError(
                f"The data collator made no `labels` with one row for each of its {len(kept)} rows, which screening "
                "needs in order to leave rows out. Return them from the data collator, or set `screening='off'`."
            )
        if is_empty:
            silence_rows(batch, torch.ones(1, dtype=torch.bool))
        return {**batch, "row_id": ids[kept], "is_early": torch.full((len(kept),), self.shows_views)}

    def _collate(self, rows: list[Any], digests: list[bytes]) -> dict[str, Any]:
        # Copies: a collator may change its rows, and a changed row has another name
        if not self.shows_views:
            return dict(self.inner([copy_row(row) for row in rows]))
        in_row = [self.reads_rows and has_image(row) for row in rows]
        views = [
            self.views.of_row(row, digest) if is_here else copy_row(row)
            for row, digest, is_here in zip(rows, digests, in_row, strict=True)
        ]
        batch = dict(self.inner(views))
        has_added_row = len(batch.get("labels", ())) > len(rows)
        if all(in_row) or not holds_pixels(batch) or has_added_row:
            return batch
        if any(in_row) and not _is_by_row(batch, len(rows)):
            return batch  # patches of the rows with an image; the others have none
        return {**batch, **self.views.of_pixels(batch, digests, [not is_here for is_here in in_row])}


class DataCollatorWithFeatures:
    """
    Data collator that adds `row_values` to each batch of a [`DataCollatorForScreening`]: what [`row_features`] gives.

    Args:
        inner ([`DataCollatorForScreening`]):
            Collator to wrap, which leaves out no rows.
    """

    def __init__(self, inner: DataCollatorForScreening) -> None:
        self.inner = inner

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """
        Collate rows.

        Returns:
            `dict[str, Any]`: the inner collator's batch, and `row_values`, float16 of shape `(B, 1246)`.
        """
        rows = list(examples)
        values = np.stack([row_features(row) for row in rows])
        batch = self.inner(rows)
        if not self.inner.reads_rows:
            # The inner collator gets its pixels from elsewhere
            for pixels in _pixels_by_row(batch, len(rows)).values():
                pictures = np.stack([picture_features(image) for image in pixels])
                values[:, : pictures.shape[1]] = pictures
        return {**batch, "row_values": torch.from_numpy(values)}


class DataCollatorForOthers:
    """
    Data collator that shows a row's response with the pictures of another row, and adds `row_values`, float16 of shape
    `(B, 1)`: 1 where another row with as many pictures was found, 0 where the row is shown as it is.

    Args:
        inner ([`DataCollatorForScreening`]):
            Collator to wrap, which leaves out no rows.
    """

    def __init__(self, inner: DataCollatorForScreening) -> None:
        self.inner = inner

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """
        Collate rows.

        Args:
            examples (`Sequence[tuple]` or `Sequence`):
                Pairs of a row and another one, or `None`; or, from a stream, rows: the other one is then the next in
                the batch, wrapping around its end, that has as many pictures. Where the inner collator gets its pixels
                from elsewhere, those of the batch are shifted by one row.

        Returns:
            `dict[str, Any]`: the inner collator's batch, whose `row_id` names the rows that the responses belong to.
        """
        pairs = list(examples) if isinstance(examples[0], tuple) else _pairs_of_batch(list(examples))
        is_swapped = [self.inner.reads_rows and other is not None for _, other in pairs]
        rows = [
            _with_images(row, other) if swaps else row for (row, other), swaps in zip(pairs, is_swapped, strict=True)
        ]
        batch = self.inner(rows)
        if not self.inner.reads_rows and len(rows) > 1:
            swapped = {key: pixels.roll(-1, 0) for key, pixels in _pixels_by_row(batch, len(rows)).items()}
            batch |= swapped
            is_swapped = [bool(swapped)] * len(rows)
        batch["row_id"] = torch.tensor([row_id(row_digest(row)) for row, _ in pairs], dtype=torch.int64)
        return {**batch, "row_values": torch.tensor(is_swapped, dtype=torch.float16).unsqueeze(1)}


def _pixels_by_row(batch: Mapping[str, Any], number: int) -> dict[str, torch.Tensor]:
    """The tensors `(B, C, H, W)` of a batch of `number` rows."""
    return {
        key: value
        for key, value in batch.items()
        if is_pixels(key, value) and isinstance(value, torch.Tensor) and value.ndim == 4 and len(value) == number
    }


def _pairs_of_batch(rows: list[Any]) -> list[tuple[Any, Any]]:
    numbers = [len(find_images(row)) for row in rows]
    pairs = []
    for place, row in enumerate(rows):
        places = [(place + step) % len(rows) for step in range(1, len(rows))] if numbers[place] else []
        other = next((rows[there] for there in places if numbers[there] == numbers[place]), None)
        pairs.append((row, other))
    return pairs


def _with_images(row: Any, other: Any) -> Any:
    """A copy of a row with the pictures of another."""
    given = iter(find_images(other))
    return replace_images(row, lambda _: next(given))


def row_id(digest: bytes) -> int:
    """The name of a row with this digest in a batch: its first 8 bytes as a signed integer."""
    return int.from_bytes(digest[:8], "little", signed=True)


def _is_by_row(batch: Mapping[str, Any], number: int) -> bool:
    return all(len(value) == number for key, value in batch.items() if is_pixels(key, value))


def finds_images_in_rows(inner: Callable[[list[Any]], Any], rows: Sequence[Any], seed: int = 0) -> bool:
    """
    Whether a collator makes its pixels from the images in the rows; if not, views are made from its batches.

    Args:
        inner (`Callable[[list], Mapping]`):
            The collator.
        rows (`Sequence`):
            Some rows; they are not changed.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the views that are tried.

    Raises:
        `ValueError`: if no view of a row's pixels can be made, neither in the row nor in the batch.
    """
    views = SeededViews(strong_view, seed)
    reads_rows = True
    for row in rows:
        digest = row_digest(row)
        with preserve_random_state():
            batch = dict(inner([copy_row(row)]))
        if len(batch.get("labels", ())) > 1:
            continue  # a row without an image: the pixels are of the row that `DataCollatorWithAnImage` added
        visual = [key for key, value in batch.items() if is_visual(key, value)]
        if visual and has_image(row):
            with preserve_random_state():
                view = dict(inner([views.of_row(row, digest)]))
            if any(not same(batch[key], view.get(key)) for key in visual):
                continue
        if visual:
            reads_rows = False
            if not views.of_pixels(batch, [digest]):
                raise ValueError(
                    f"The data collator makes `{visual[0]}` from something else than images in the rows, and it does "
                    "not have the shape of images, so no view of it can be made. Keep PIL images in the rows (in a "
                    "column `image` or `images`, or inside `messages`) and call the processor in the data collator."
                )
    return reads_rows


def silence_rows(batch: dict[str, Any], is_silent: torch.Tensor) -> None:
    """Exclude some rows of a batch from the loss, in place: from the labels, and from the rows with two views."""
    is_silent = torch.nn.functional.pad(is_silent, (0, len(batch["labels"]) - len(is_silent)), value=True)
    batch["labels"] = batch["labels"].masked_fill(is_silent.unsqueeze(1), -100)
    if "has_image" in batch:
        batch["has_image"] = batch["has_image"] & ~is_silent
