# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Shuffle: an exact permutation of cells that is never the identity."""

import numpy as np
import pytest

from cvreg_trainer.perturbations import shuffle


SIDES = [1, 2, 3, 4, 5, 7, 8, 13]


def numbered(height: int, width: int) -> np.ndarray:
    """A region whose pixels all differ."""
    return np.arange(height * width, dtype=np.int32).reshape(height, width, 1)


@pytest.mark.parametrize(("height", "width"), [(h, w) for h in SIDES for w in SIDES if h * w > 1])
def test_permutes_pixels_and_never_returns_the_region_itself(height, width):
    region = numbered(height, width)
    moved = np.zeros((height, width), dtype=bool)
    for seed in range(60):
        result = shuffle(region, region, np.random.default_rng(seed))
        assert sorted(result.ravel()) == sorted(region.ravel())
        assert not np.array_equal(result, region)
        moved |= (result != region)[..., 0]
    # Only a cell that is the sole one of its size stays for ever.
    assert moved.mean() > 0.8 or min(height, width) <= 5
    if height % 4 == 0 and width % 4 == 0:
        assert moved.all()


def test_cells_of_a_4x4_grid_stay_whole():
    region = numbered(8, 12)
    result = shuffle(region, region, np.random.default_rng(3))
    cells = {tuple(region[y : y + 2, x : x + 3].ravel()) for y in range(0, 8, 2) for x in range(0, 12, 3)}
    assert {tuple(result[y : y + 2, x : x + 3].ravel()) for y in range(0, 8, 2) for x in range(0, 12, 3)} == cells
    assert len(cells) == 16


def test_two_cells_always_swap_and_all_orders_of_three_occur_equally_often():
    pair = numbered(1, 2)
    orders = [tuple(shuffle(numbered(3, 1), pair, np.random.default_rng(seed)).ravel()) for seed in range(1000)]
    assert all(shuffle(pair, pair, np.random.default_rng(seed)).ravel().tolist() == [1, 0] for seed in range(20))
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 5 and counts.min() > 150  # 200 expected of each, standard deviation 13


def test_channels_move_together():
    region = np.repeat(numbered(6, 6), 3, axis=-1)
    result = shuffle(region, region, np.random.default_rng(0))
    assert (result[..., 0] == result[..., 1]).all() and (result[..., 0] == result[..., 2]).all()


def test_a_single_pixel_becomes_noise():
    image = np.full((5, 5, 3), 128, dtype=np.uint8)
    results = {tuple(shuffle(image[:1, :1], image, np.random.default_rng(seed)).ravel()) for seed in range(20)}
    assert len(results) == 20
