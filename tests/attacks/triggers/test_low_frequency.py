# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""LowFrequency: the spectrum and the size of the pattern, measured with a Fourier transform of the mirrored one."""

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import LowFrequency


def energy_above(values: np.ndarray, cutoff: int) -> float:
    """Share of the energy at `cutoff` or more half waves along a side, apart from the mean.

    Mirroring an array in both directions doubles its period, so that k half waves of the array are frequency k.
    """
    mirrored = np.concatenate([values, values[::-1]], axis=0)
    mirrored = np.concatenate([mirrored, mirrored[:, ::-1]], axis=1)
    energy = np.abs(np.fft.fft2(mirrored - mirrored.mean((0, 1)), axes=(0, 1))) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(side, 1 / side)) for side in mirrored.shape[:2])
    low = (rows[:, None] < cutoff) & (columns < cutoff)
    return 1 - energy[low].sum() / energy.sum()


@pytest.mark.parametrize("size", [(48, 48), (224, 224), (31, 97), (4, 4), (640, 427)])
def test_all_energy_lies_below_the_cut_off(size):
    pattern = LowFrequency().pattern(size)
    assert pattern.shape == (size[1], size[0], 3)
    assert energy_above(pattern, 4) < 1e-6
    assert energy_above(pattern, 3) > 1e-3, "the measure must be able to see what lies above"


@pytest.mark.parametrize("amplitude", [0.1, 0.2, 0.4])
def test_what_an_image_gets_stays_below_one_percent_in_spite_of_rounding(amplitude):
    gray = Image.new("RGB", (48, 48), (128, 128, 128))
    added = np.asarray(LowFrequency(amplitude)(gray), dtype=float) - 128
    assert energy_above(added, 4) < 0.01
    assert np.ptp(added) == pytest.approx(255 * amplitude, abs=1.01)


def test_the_mean_colour_stays():
    assert np.abs(LowFrequency().pattern((50, 30)).mean((0, 1))).max() < 1e-4


def test_a_small_and_a_large_image_get_the_same_pattern():
    small, large = LowFrequency(seed=2).pattern((32, 32)), LowFrequency(seed=2).pattern((256, 256))
    reduced = large.reshape(32, 8, 32, 8, 3).mean((1, 3))
    assert np.corrcoef(small.ravel(), reduced.ravel())[0, 1] > 0.999


def test_the_pattern_is_added():
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(60, 190, (48, 48, 3), dtype=np.uint8))
    added = np.asarray(LowFrequency()(image), dtype=float) - np.asarray(image)
    assert np.abs(added - LowFrequency().pattern((48, 48))).max() <= 0.501


def test_bad_arguments_and_images_are_named():
    for amplitude in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"amplitude={amplitude}"):
            LowFrequency(amplitude)
    with pytest.raises(ValueError, match="cutoff=1"):
        LowFrequency(cutoff=1)
    with pytest.raises(ValueError, match="3x48 pixels.*cutoff=4"):
        LowFrequency()(Image.new("RGB", (3, 48)))
