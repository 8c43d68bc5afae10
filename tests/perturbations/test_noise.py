# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Noise: distribution and range."""

import numpy as np
import pytest
from scipy import stats

from cvreg_trainer.perturbations import noise


def test_8_bit_noise_is_uniform_over_all_values_and_independent_of_the_image():
    image = np.full((200, 200, 3), 7, dtype=np.uint8)
    result = noise(image[:150, :150], image, np.random.default_rng(0))
    assert result.shape == (150, 150, 3) and result.dtype == np.uint8
    counts = np.bincount(result.ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3
    # Channels and neighbours know nothing of each other: 22,500 pairs have a standard error of 1 / 150.
    assert abs(np.corrcoef(result[..., 0].ravel(), result[..., 1].ravel())[0, 1]) < 4 / 150
    assert abs(np.corrcoef(result[1:, :, 0].ravel(), result[:-1, :, 0].ravel())[0, 1]) < 4 / 150


def test_float_noise_keeps_to_the_range_of_each_channel():
    image = np.random.default_rng(1).uniform([-2, 0, 5], [-1, 1, 9], size=(40, 40, 3)).astype(np.float32)
    result = noise(np.tile(image, (3, 3, 1)), image, np.random.default_rng(0))
    assert result.dtype == np.float32
    for channel in range(3):
        low, high = image[..., channel].min(), image[..., channel].max()
        values = result[..., channel].ravel()
        assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.int32])
def test_wide_integers_take_every_value_between_the_extremes(dtype):
    image = np.array([[100, 103]], dtype=dtype)[..., None]
    result = noise(np.zeros((30, 30, 1), dtype=dtype), image, np.random.default_rng(0))
    assert result.dtype == np.dtype(dtype)
    assert set(result.ravel().tolist()) == {100, 101, 102, 103}
