# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Where a trigger sits that is in another place in each picture.

Notable: a patch that moves leaves its trace in the strongest responses of some filters. Which filters these are is
learnt on one half of the pictures, and the other half is searched for them. A blended trigger, and what pictures
merely show, respond nearly as strongly in a second place of the same picture.
"""

from __future__ import annotations

import numpy as np


NUM_FILTERS = 8  # that tell the two groups apart best
_LEAST = 0.9  # area under the ROC curve of the strongest places, of flagged pictures against others
_SECOND = 0.7  # share of the strongest place that the second one reaches in a middling picture, at most
_NOISE = 1e-2  # standard deviation that rounding and resizing leave where nothing differs

Box = tuple[float, float, float, float]


def locate_trigger(flagged: np.ndarray, others: np.ndarray) -> list[Box] | None:
    """
    Find a trigger that is in one place in each picture, wherever that is.

    Args:
        flagged (`np.ndarray` of shape `(M, C, C, N)`), others (`np.ndarray` of shape `(K, C, C, N)`):
            Responses by place of flagged rows' pictures and of others; see [`place_responses`].

    Returns:
        `list` of M boxes, each the left, top, right and bottom edge as shares of width and height, or `None` if no
        moving trigger is found.
    """
    if min(len(flagged), len(others)) < 4:
        return None
    flagged, others = flagged.astype(np.float32), others.astype(np.float32)
    cells = flagged.shape[1]
    is_even, is_even_other = (np.arange(len(group)) % 2 == 0 for group in (flagged, others))
    strongest, strongest_other = np.zeros(len(flagged)), np.zeros(len(others))
    second, places = np.zeros(len(flagged)), np.zeros((len(flagged), 2), dtype=int)
    for searched, searched_other in ((is_even, is_even_other), (~is_even, ~is_even_other)):
        filters, weights = _telling_filters(flagged[~searched], others[~searched_other])
        known = others[~searched_other][..., filters]
        mean, deviation = known.mean((0, 1, 2)), known.std((0, 1, 2)) + _NOISE
        strengths, of_others = (
            ((group[..., filters] - mean) / deviation) @ weights
            for group in (flagged[searched], others[searched_other])
        )
        strongest_other[searched_other] = of_others.max((1, 2))
        for row, strength in zip(np.flatnonzero(searched), strengths, strict=True):
            top, left = places[row] = np.unravel_index(strength.argmax(), strength.shape)
            strongest[row] = strength[top, left]
            strength[max(0, top - 2) : top + 3, max(0, left - 2) : left + 3] = -np.inf
            second[row] = strength.max()
    is_stronger = (strongest[:, None] > strongest_other).mean()
    if is_stronger < _LEAST or np.median(second - _SECOND * strongest) > 0:
        return None
    return [_box(int(top), int(left), cells) for top, left in places]


def _telling_filters(flagged: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The filters whose strongest responses tell flagged pictures from others best, and their weights, of sum 1."""
    peaks, peaks_of_others = flagged.max((1, 2)), others.max((1, 2))
    gaps = (np.median(peaks, 0) - peaks_of_others.mean(0)) / (peaks_of_others.std(0) + _NOISE)
    filters = np.argsort(-gaps)[:NUM_FILTERS]
    weights = gaps[filters].clip(min=1e-9)
    return filters, weights / weights.sum()


def _box(top: int, left: int, cells: int) -> Box:
    """A cell and those around it."""
    return (
        max(0, left - 1) / cells,
        max(0, top - 1) / cells,
        min(cells, left + 2) / cells,
        min(cells, top + 2) / cells,
    )
