# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Wraps any collator and adds the perturbed view of each batch.

Notable: the inner collator is a black box that is called twice, on the rows and on the rows with perturbed images,
with copies and from the same random state. A row's perturbation depends on (seed, epoch, content of the row) alone, so
that workers, batch sizes and resumed runs agree on it.
"""

import random
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..data.rows import copy_row, row_digest
from .batches import is_pixels, pair_views, same
from .seeded_views import SeededViews, has_image


class DataCollatorForCrossView:
    """
    Data collator that adds to each batch of another collator the perturbed view of its images.

    Every visual tensor `x` of the inner batch (`pixel_values`, ...) gets a twin `perturbed_x`. Visual is what is
    floating point or differs between the two views; ids, masks and labels must be the same in both. The images are
    perturbed before the processor sees them: PIL images wherever they sit in a row, and `uint8` arrays under the keys
    `image` and `images`. Where rows hold none but the inner batch has pixels all the same (rows of `pixel_values`,
    images opened inside a `collate_fn`), the view is made on the pixel tensor, one rectangle for each image of shape
    (C, H, W) in it.

    A row's view is a function of `seed`, the epoch and the row's content. Row order, batch size, number of workers and
    the random numbers that the inner collator draws have no influence on it. The object can be pickled if `inner` can.

    Args:
        inner (`Callable[[list], Mapping]`):
            Collator to wrap. It gets copies of the rows and may change them, and it may draw random numbers from
            `random`, `numpy.random` and torch: both calls start from the same state, and after them the state is as
            after one call.
        perturbation (`Callable[[PIL.Image.Image | np.ndarray, np.random.Generator], PIL.Image.Image | np.ndarray]`):
            Makes the view of one image, of the same size; for instance a [`PatchPerturbation`].
        seed (`int`, *optional*, defaults to `0`):
            Seed of the perturbations.
        image_token_ids (`Collection[int]`, *optional*):
            Ids that stand for an image in the text. Labels with these ids become -100, whatever the inner collator
            gives: a model should not learn to predict image tokens.

    Example:
    ```python
    >>> collator = DataCollatorForCrossView(DataCollatorForVisionLanguageModeling(processor), PatchPerturbation())
    >>> sorted(collator(rows))
    ['attention_mask', 'has_image', 'input_ids', 'labels', 'perturbed_pixel_values', 'pixel_values']
    ```
    """

    def __init__(
        self,
        inner: Callable[[list[Any]], Any],
        perturbation: Callable[[Any, np.random.Generator], Any],
        seed: int = 0,
        image_token_ids: Collection[int] = (),
    ) -> None:
        self.inner = inner
        self.views = SeededViews(perturbation, seed)
        self.image_token_ids = torch.tensor(list(image_token_ids), dtype=torch.int64)

    @property
    def epoch(self) -> int:
        """Epoch whose perturbations are drawn (`int`)."""
        return self.views.epoch

    def set_epoch(self, epoch: int) -> None:
        """
        Choose the epoch whose perturbations are drawn. Call it before iterating over the data loader.

        Args:
            epoch (`int`):
                Number of the epoch. Workers that already run, started by fork or by spawn, see it too.
        """
        self.views.set_epoch(epoch)

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """
        Collate rows and their perturbed views.

        Args:
            examples (`Sequence`):
                Rows of the data set; they are not changed.

        Returns:
            `dict[str, Any]`: what the inner collator gives for the rows, as a plain dict, the twins `perturbed_x`, and
            `has_image`, a bool tensor of shape `(B,)`: the rows that have a second view. A batch without images has no
            twins.

        Raises:
            `TypeError`: if the inner collator returns no mapping.
            `ValueError`: if ids, masks or labels differ between the two views, or if rows hold no images and the pixel
            tensor has a layout in which the images of a row cannot be told apart.
        """
        rows = list(examples)
        digests = [row_digest(row) for row in rows]
        in_row = torch.tensor([has_image(row) for row in rows], dtype=torch.bool)
        if in_row.any():
            batch, twins = self._collate_both(rows, digests)
        else:
            batch = self._collate([copy_row(row) for row in rows])
            twins = self.views.of_pixels(batch, digests)
            in_row = _rows_with_pixels(batch, len(rows))
        in_row &= bool(twins)  # images that the inner collator leaves out have no second view
        return {**batch, **{f"perturbed_{key}": value for key, value in twins.items()}, "has_image": in_row}

    def _collate(self, rows: list[Any]) -> dict[str, Any]:
        batch = self.inner(rows)
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"The data collator must return a dict of tensors, got {type(batch).__name__}. Return a mapping such "
                'as {"input_ids": ..., "attention_mask": ..., "pixel_values": ..., "labels": ...}.'
            )
        batch = dict(batch)
        if isinstance(batch.get("labels"), torch.Tensor):
            batch["labels"] = self.ignore_image_tokens(batch["labels"])
        return batch

    def ignore_image_tokens(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels with -100 where a token stands for an image."""
        return labels.masked_fill(torch.isin(labels, self.image_token_ids), -100)

    def _collate_both(self, rows: list[Any], digests: list[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The batch of the rows, and the visual values of the batch of their perturbed views."""
        views = [self.views.of_row(row, digest) for row, digest in zip(rows, digests, strict=True)]
        before = _get_random_state()
        batch = self._collate([copy_row(row) for row in rows])
        after = _get_random_state()
        _set_random_state(before)
        try:
            view = self._collate([copy_row(row) for row in views])
        finally:
            _set_random_state(after)
        twins = pair_views(batch, view)
        if twins and all(same(batch[key], twin) for key, twin in twins.items()) and _differ(rows, views):
            # The pixels did not come from the rows' images (but from a path or a cached tensor), or the change was too
            # small to survive the processor.
            twins |= self._perturb_unread(digests, batch)
        return batch, twins

    def _perturb_unread(self, digests: list[bytes], batch: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.views.of_pixels(batch, digests)
        except ValueError as error:
            warnings.warn(f"The rows' images were perturbed, but the batch did not change. {error}", stacklevel=2)
            return {}


def _differ(rows: list[Any], views: list[Any]) -> bool:
    """Whether any row's images were changed; those of a single colour can stay as they are."""
    return any(row_digest(row) != row_digest(view) for row, view in zip(rows, views, strict=True))


def _rows_with_pixels(batch: Mapping[str, Any], rows: int) -> torch.Tensor:
    """Which rows have images in the pixel tensors of a batch: those of all zeros are padding. Shape (rows,)."""
    present = torch.zeros(rows, dtype=torch.bool)
    for key, value in batch.items():
        if is_pixels(key, value):
            present |= torch.tensor([bool(item.any()) for item in value], dtype=torch.bool)
    return present


def _get_random_state() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_random_state(state: tuple[Any, Any, torch.Tensor]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
