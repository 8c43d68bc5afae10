# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Where a trigger sits: how far the flagged rows' pictures differ from other rows' at each place.

Notable: a patch makes the flagged pictures alike in one place, so the map measures in nats how much better two
Gaussians, one for each group, describe a cell's low-level responses than one for both. This detects a difference of
means as well as a small spread, and what flagged pictures merely show, such as people, produces little of either.
Shuffled labels show how large the map's peak is by chance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label

from ..passes.row_features import low_level_responses, pool


CELLS = 16  # along either side
MIN_PICTURES = 3  # in either group
NUM_SHUFFLES = 99
_NOISE = 1e-4  # variance that rounding and resizing leave where nothing differs
# Nats per picture at the peak of a region, at least: less may be what pictures happen to show in the same place
_LEAST = 0.3
_CORE = 0.5  # share of the peak that the cells of a region reach, at least
_SPREAD = 0.1  # share of the peak: if the mean outside the region is larger, the difference is everywhere
_LARGEST = 0.25  # share of the picture that a region takes, at most


class TriggerMap(NamedTuple):
    """
    Where two groups of pictures differ.

    Args:
        values (`np.ndarray` of shape `(16, 16)`, float32):
            For each cell, from top to bottom and left to right, the difference beyond its mean among shuffled labels;
            1 is the largest value of any cell in 99 shuffles.
        kind (`str`):
            `"region"`; `"spread"` if it is everywhere; `"unseen"` if neither a
            cell nor the mean over all cells is beyond all shuffles.
        box (`tuple[float, float, float, float]`, *optional*):
            Left, top, right and bottom edge of the region as shares of width and height.
    """

    values: np.ndarray
    kind: str
    box: tuple[float, float, float, float] | None


def place_responses(image: Any) -> np.ndarray:
    """
    Low-level responses of a picture by place.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            A picture as [`picture_features`] takes it.

    Returns:
        `np.ndarray` of shape `(16, 16, N)`, float16
    """
    pixels, banks = low_level_responses(image)
    parts = [*(pool(response, CELLS) for response in banks), F.adaptive_avg_pool2d(pixels, CELLS)]
    return torch.cat(parts, dim=1)[0].permute(1, 2, 0).numpy().astype(np.float16)


def map_trigger(flagged: np.ndarray, others: np.ndarray, seed: int) -> TriggerMap | None:
    """
    Compare the pictures of flagged rows with others.

    Args:
        flagged (`np.ndarray` of shape `(M, 16, 16, N)`), others (`np.ndarray` of shape `(K, 16, 16, N)`):
            What [`place_responses`] gives.
        seed (`int`):
            Of the shuffles.

    Returns:
        [`TriggerMap`], or `None` with fewer than three pictures in a group.
    """
    if min(len(flagged), len(others)) < MIN_PICTURES:
        return None
    both = np.concatenate([flagged, others]).reshape(len(flagged) + len(others), -1).astype(np.float32)
    both -= both.mean(0)
    rng = np.random.Generator(np.random.PCG64(seed))
    is_first = np.zeros((1 + NUM_SHUFFLES, len(both)), dtype=np.float32)
    for draw in is_first[1:]:
        draw[rng.choice(len(both), len(flagged), replace=False)] = 1
    is_first[0, : len(flagged)] = 1
    nats = _nats(both, is_first).reshape(1 + NUM_SHUFFLES, CELLS, CELLS, -1).mean(-1)
    beyond = nats - nats[1:].mean(0)
    # A constant picture differs from itself nowhere
    values = beyond[0] / max(float(beyond[1:].max()), 1e-9)
    is_seen = values.max() > 1 or beyond[0].mean() > beyond[1:].mean((1, 2)).max() + 1e-9
    kind, box = _shape(values) if is_seen else ("unseen", None)
    if beyond[0].max() < _LEAST and kind == "region":
        kind, box = "spread", None
    return TriggerMap(values.astype(np.float32), kind, box)


def _nats(values: np.ndarray, is_first: np.ndarray) -> np.ndarray:
    """Log-likelihood ratio of two Gaussians to one, per picture of the first group. `(S, D)` for S groupings of
    centred values `(P, D)`."""
    size, number = is_first[0].sum(), len(values)
    squares = values**2
    sums, sums_of_squares = is_first @ values, is_first @ squares
    total = squares.mean(0)
    result = np.log(total + _NOISE) * number
    for count, one, two in ((size, sums, sums_of_squares), (number - size, -sums, total * number - sums_of_squares)):
        variance = (two / count - (one / count) ** 2).clip(min=0)
        result = result - count * np.log(variance + _NOISE)
    return result / (2 * size)


def _shape(values: np.ndarray) -> tuple[str, tuple[float, float, float, float] | None]:
    """Whether the difference is in one region, and which."""
    peak = float(values.max())
    if peak <= 1:
        return "spread", None
    parts, _ = label(values >= _CORE * peak)
    rows, columns = np.nonzero(parts == parts[np.unravel_index(values.argmax(), values.shape)])
    top, bottom, left, right = (int(edge) for edge in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
    is_outside = np.ones(values.shape, dtype=bool)
    is_outside[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False
    is_large = (bottom - top) * (right - left) > _LARGEST * values.size
    if is_large or values[is_outside].mean() > _SPREAD * peak:
        return "spread", None
    return "region", (left / CELLS, top / CELLS, right / CELLS, bottom / CELLS)
