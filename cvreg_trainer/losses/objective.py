# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The objective of the paper (equation 17): the task loss and the three weighted terms, over a global batch.

Notable: a global batch comes in micro-batches and on several ranks. Its denominators are counted first, then each
micro-batch adds its part of every sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .discrepancy import discrepancy_loss
from .entropy import entropy_loss
from .patch import patch_loss


TERMS = ("task_loss", "patch_loss", "discrepancy_loss", "entropy_loss")


class Counts(NamedTuple):
    """Denominators of a global batch: valid tokens, those in rows with an image, and rows with an image."""

    tokens: torch.Tensor
    image_tokens: torch.Tensor
    image_rows: torch.Tensor


class CrossViewObjective:
    """
    The objective, and what its parts were since the last log.

    Args:
        weights (`Sequence[float]`):
            Of feature consistency, output discrepancy and entropy hinge.
        entropy_threshold (`float`):
            The hinge's, in nats.
        is_encoder_decoder (`bool`):
            Whether labels stand where they are predicted, not one position later.
    """

    def __init__(self, weights: Sequence[float], entropy_threshold: float, is_encoder_decoder: bool) -> None:
        self.weights, self.entropy_threshold = tuple(weights), entropy_threshold
        self.is_encoder_decoder = is_encoder_decoder
        # Of the optimiser step under way, and since the last log
        self.counts: Counts | None = None
        self._sums: torch.Tensor | None = None
        self._num_steps = 0

    def count(self, batches: Iterable[Mapping[str, torch.Tensor]]) -> torch.Tensor:
        """The [`Counts`] of some micro-batches with `labels` and `has_image`. Shape `(3,)`."""
        counts = torch.zeros(3)
        for batch in batches:
            labels, has_image = batch["labels"], batch["has_image"]
            tokens = (labels if self.is_encoder_decoder else labels[:, 1:]).ne(-100).sum(1)
            counts += torch.stack([tokens.sum(), (tokens * has_image).sum(), has_image.sum()]).cpu()
        return counts

    def begin_step(self, counts: torch.Tensor) -> Counts:
        """Keep the counts of a global batch, `(3,)`, for the micro-batches that follow."""
        self.counts = Counts(*counts)
        self._num_steps += 1
        return self.counts

    def terms(self, output: Any, has_image: torch.Tensor, counts: Counts) -> list[torch.Tensor]:
        """
        The three terms of a micro-batch, as parts of the global batch's.

        Args:
            output ([`CrossViewOutput`]):
                What the model gives for both views.
            has_image (`torch.Tensor` of shape `(B,)`, bool):
                Rows with a second view.
            counts ([`Counts`]):
                Of the global batch.
        """
        has_image = has_image.to(output.similarity.device)
        return [
            patch_loss(output.feature_distance, has_image.to(output.feature_distance.device), counts.image_rows),
            discrepancy_loss(output.similarity, output.label_mask, has_image, counts.image_tokens),
            entropy_loss(output.entropy, output.label_mask, self.entropy_threshold, counts.tokens),
        ]

    def total(self, task_loss: torch.Tensor, terms: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
        """The task loss and the weighted terms, all weights times a factor."""
        loss = task_loss
        for weight, term in zip(self.weights, terms, strict=True):
            # A term with weight 0 is logged but left out: 0 times an infinity would make the loss NaN
            if weight > 0:
                loss = loss + scale * weight * term
        return loss

    def parts(self, task_loss: torch.Tensor, terms: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The parts that [`CrossViewObjective.total`] adds up, by name."""
        parts = zip(TERMS, (task_loss, *terms), (1.0, *self.weights), strict=True)
        return {name: value for name, value, weight in parts if weight}

    def keep(self, task_loss: torch.Tensor, terms: Sequence[torch.Tensor]) -> None:
        """Remember a micro-batch's parts for the log."""
        sums = torch.stack([task_loss, *terms]).detach()
        self._sums = sums if self._sums is None else self._sums + sums

    def take_means(self, gather: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """
        Mean of each part over ranks and over the optimiser steps since the last call, as the trainer logs its loss;
        empty if there were none.

        Args:
            gather (`Callable`):
                Concatenates the tensors `(4,)` of all ranks.
        """
        if self._sums is None:
            return {}
        means = gather(self._sums).view(-1, len(TERMS)).mean(0) / max(self._num_steps, 1)
        self._sums, self._num_steps = None, 0
        return dict(zip(TERMS, means.tolist(), strict=True))
