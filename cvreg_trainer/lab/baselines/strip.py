# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Superimpose other images on an image and see whether the model cares: STRIP.

Source: Gao et al., "STRIP: A Defence Against Trojan Attacks on Deep Neural Networks" (ACSAC 2019). An input on which
other images are superimposed should change the prediction; where a trigger decides, it does not, and the entropy of
the predictions over the copies is low. The threshold is the quantile at the false rejection rate of a normal
distribution fitted to the entropies of clean held-out inputs, which this baseline is therefore given. As in the
authors' code, the pixels of both images are added and clipped.

Departures: the prediction is that of the row's own response under teacher forcing, its entropy the mean over the
response's tokens (the source has one class); there are 8 copies instead of 100, since every copy is a pass over the
data; and it filters the training rows instead of refusing inputs, so that the model can be trained again without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageChops
from scipy.stats import norm

from ...data.rows import find_images, replace_images
from ...perturbations.images import edit_colours
from .scoring import ResponseStatistics, response_collator, response_statistics, suspicion


FALSE_REJECTION_RATE = 0.01


def strip_scores(
    model: Any,
    processor: Any,
    dataset: Any,
    overlays: Any = None,
    num_copies: int = 8,
    seed: int = 0,
    batch_size: int = 16,
) -> np.ndarray:
    """
    Mean entropy over copies of every row with other images superimposed, with its sign changed.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            A model that was trained on the rows, poison included.
        processor, dataset, batch_size:
            As in [`response_statistics`].
        overlays ([`~datasets.Dataset`] or a sequence of rows, *optional*):
            Rows whose first images are superimposed: clean held-out ones in the source. Defaults to `dataset` itself.
        num_copies (`int`, *optional*, defaults to `8`):
            Copies of each row, each with another image.
        seed (`int`, *optional*, defaults to `0`):
            Which images are superimposed on a row is a function of this, the copy and the row's place.

    Returns:
        `np.ndarray` of shape `(num_rows,)`: nats, at most 0; higher is more suspicious.

    Raises:
        `ValueError`: if `num_copies` is below 1 or no row of `overlays` has an image.
    """
    if num_copies < 1:
        raise ValueError(f"`num_copies={num_copies}` must be at least 1.")
    overlays = dataset if overlays is None else overlays
    collator = response_collator(model, processor, dataset)
    copies: list[ResponseStatistics] = [
        response_statistics(model, processor, SuperimposedRows(dataset, overlays, (seed, copy)), batch_size, collator)
        for copy in range(num_copies)
    ]
    entropy = np.mean([statistics.entropy for statistics in copies], axis=0)
    return suspicion(-entropy, copies[0].num_tokens)


def false_rejection_threshold(clean_scores: np.ndarray, rate: float = FALSE_REJECTION_RATE) -> float:
    """
    The score above which a row is flagged.

    Args:
        clean_scores (`np.ndarray`):
            [`strip_scores`] of clean held-out rows.
        rate (`float`, *optional*, defaults to `0.01`):
            Share of clean rows that may be flagged, above 0 and below 1.

    Returns:
        `float`: the quantile of the normal distribution with the scores' mean and standard deviation.

    Raises:
        `ValueError`: if `rate` is out of range or there are fewer than two scores.
    """
    if not 0 < rate < 1:
        raise ValueError(f"`rate={rate}` must lie between 0 and 1, such as 0.01 for 1 %.")
    if len(clean_scores) < 2:
        raise ValueError(f"{len(clean_scores)} clean scores fit no distribution; give those of at least 2 rows.")
    return float(norm.isf(rate, np.mean(clean_scores), np.std(clean_scores, ddof=1)))


def superimpose(image: Any, overlay: Any) -> Any:
    """
    Add an image, scaled to the size of the other, and clip at white.

    Args:
        image, overlay (`PIL.Image.Image` or `np.ndarray` of `uint8`):
            Images of any size and 8-bit mode.

    Returns:
        `PIL.Image.Image` or `np.ndarray`: of the size and mode of `image`.
    """
    added = overlay if isinstance(overlay, Image.Image) else Image.fromarray(overlay.squeeze())

    def add(rgb: Image.Image) -> Image.Image:
        return ImageChops.add(rgb, added.convert("RGB").resize(rgb.size, Image.Resampling.BILINEAR))

    return edit_colours(image, add)


class SuperimposedRows(Sequence[Any]):
    """
    Rows with the image of another row superimposed on each of theirs, made when they are read.

    Args:
        rows, overlays ([`~datasets.Dataset`] or sequences of rows):
            The rows, which are not changed, and those whose first images are superimposed.
        seed (`tuple[int, ...]`):
            Seed of the choice.
    """

    def __init__(self, rows: Any, overlays: Any, seed: tuple[int, ...]) -> None:
        self.rows, self.overlays, self.seed = rows, overlays, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        rng = np.random.default_rng([*self.seed, index])
        return replace_images(self.rows[index], lambda image: superimpose(image, self._draw(rng)))

    def _draw(self, rng: np.random.Generator) -> Any:
        """The first image of a random row, or of the next row that has one."""
        number = len(self.overlays)
        start = int(rng.integers(number)) if number else 0
        for offset in range(number):
            images = find_images(self.overlays[(start + offset) % number])
            if images:
                return images[0]
        raise ValueError(f"None of the {number} rows of `overlays` has an image to superimpose.")
