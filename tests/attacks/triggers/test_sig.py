# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""SIG against its formula, written out."""

import math

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import Sig


@pytest.mark.parametrize(("size", "amplitude", "frequency"), [((48, 32), 40.0, 6.0), ((31, 7), 12.0, 2.5)])
def test_the_published_formula(size: tuple[int, int], amplitude: float, frequency: float) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    before, after = np.asarray(image, dtype=float), np.asarray(Sig(amplitude, frequency)(image), dtype=float)
    for row in range(size[1]):
        for column in range(size[0]):
            wave = amplitude * math.sin(2 * math.pi * column * frequency / size[0])
            for channel in range(3):
                wanted = min(max(before[row, column, channel] + wave, 0), 255)
                assert abs(after[row, column, channel] - wanted) <= 0.51


def test_six_periods_of_one_frequency() -> None:
    gray = Image.new("RGB", (240, 10), (128, 128, 128))
    wave = np.asarray(Sig()(gray), dtype=float)[0, :, 0] - 128
    spectrum = np.abs(np.fft.rfft(wave))
    assert spectrum.argmax() == 6 and spectrum[6] ** 2 > 0.999 * (spectrum**2).sum()
    assert wave.max() == 40 and wave.min() == -40


def test_bad_arguments_are_named() -> None:
    for value in (0, 256, float("nan")):
        with pytest.raises(ValueError, match=f"amplitude={value}"):
            Sig(amplitude=value)
    for value in (0, -1, float("inf")):
        with pytest.raises(ValueError, match=f"frequency={value}"):
            Sig(frequency=value)
