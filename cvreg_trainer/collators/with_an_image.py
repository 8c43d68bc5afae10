# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Batches that always hold an image, for engines that shard the model.

FSDP and DeepSpeed gather a layer's weights and reduce its gradients at the moment it runs. A process whose batch has
no image never runs the vision tower, and the others wait for it forever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..data.rows import copy_row
from .seeded_views import has_image


class DataCollatorWithAnImage:
    """
    Data collator that adds one row with an image to batches that have none, without any supervised token and outside
    of the rows with two views: it takes no part in the loss.

    Args:
        inner (`Callable[[list], Mapping]`):
            Collator to wrap, which reads the images of the rows.
        row (`Mapping[str, Any]`):
            A row with an image.
    """

    def __init__(self, inner: Callable[[list[Any]], Any], row: Any) -> None:
        self.inner = inner
        self.row = row

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """
        Collate rows.

        Returns:
            `dict[str, Any]`: the inner collator's batch, of B rows, or of B + 1 where the given ones have no image.
        """
        rows = list(examples)
        if any(has_image(row) for row in rows):
            return dict(self.inner(rows))
        batch = dict(self.inner([*rows, copy_row(self.row)]))
        batch["labels"] = batch["labels"].index_fill(0, torch.tensor([len(rows)]), -100)
        if "has_image" in batch:
            batch["has_image"] = batch["has_image"].index_fill(0, torch.tensor([len(rows)]), False)
        return batch
