# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Shuffle: the rectangle is cut into a grid of cells, and the cells change places.

No pixel value is invented or lost, so colour statistics stay as they are while every local pattern is torn apart.
Sides that are no multiple of the grid give cells that differ by one pixel; these swap places among cells of their own
size, so that the whole rectangle takes part and the result is still an exact permutation.
"""

from itertools import pairwise

import numpy as np

from .noise import noise


GRID = 4  # cells along each side


def _bands(length: int) -> list[tuple[int, int]]:
    """Start and end of the at most `GRID` bands that a side of `length` pixels is cut into."""
    count = min(GRID, length)
    edges = [length * band // count for band in range(count + 1)]
    return list(pairwise(edges))


def shuffle(region: np.ndarray, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Permute the cells of a 4x4 grid over a region, never by the identity.

    A side shorter than four pixels is cut into cells of one pixel. A region of a single pixel has nothing to permute
    and becomes [`noise`] instead.

    Args:
        region (`np.ndarray` of shape `(h, w, C)`):
            Pixels of the rectangle.
        image (`np.ndarray` of shape `(H, W, C)`):
            Whole image; read only where the region is a single pixel.
        rng (`np.random.Generator`):
            Source of the permutation: uniform among those that keep cell sizes and move at least one cell.

    Returns:
        `np.ndarray` of shape `(h, w, C)`: new pixels, in the dtype of `region`.
    """
    height, width = region.shape[:2]
    if height * width == 1:
        return noise(region, image, rng)
    cells = [(slice(*row), slice(*column)) for row in _bands(height) for column in _bands(width)]
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, (rows, columns) in enumerate(cells):
        by_size.setdefault((rows.stop - rows.start, columns.stop - columns.start), []).append(index)

    identity = np.arange(len(cells))
    source = identity
    # Ends: four bands of at most two widths always leave two cells of the same size.
    while np.array_equal(source, identity):
        source = identity.copy()
        for members in by_size.values():
            source[members] = rng.permutation(members)
    result = np.empty_like(region)
    for target, origin in zip(cells, source, strict=True):
        result[target] = region[cells[origin]]
    return result
