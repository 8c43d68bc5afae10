# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""FTrojan: what it adds, seen in the frequencies of the colours."""

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dct

from cvreg_trainer.attacks import FTrojan


def chroma(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luminance, red and blue difference as JPEG defines them."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return luminance, 0.713 * (red - luminance), 0.564 * (blue - luminance)


def block_dct(block: np.ndarray) -> np.ndarray:
    return dct(dct(block, axis=0, norm="ortho"), axis=1, norm="ortho")


def test_two_coefficients_of_each_colour_difference_grow_in_every_block() -> None:
    pattern = FTrojan(magnitude=30).pattern((96, 64)).astype(float)
    luminance, *differences = chroma(pattern)
    assert np.abs(luminance).max() < 0.02
    for difference in differences:
        for top in (0, 32):
            for left in (0, 32, 64):
                spectrum = block_dct(difference[top : top + 32, left : left + 32])
                assert spectrum[15, 15] == pytest.approx(30, abs=0.1) == spectrum[31, 31]
                spectrum[15, 15] = spectrum[31, 31] = 0
                assert np.abs(spectrum).max() < 0.1


def test_the_image_gets_the_pattern_rounded() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(40, 210, (50, 70, 3), dtype=np.uint8))
    attack = FTrojan(magnitude=100)
    added = np.asarray(attack(image), dtype=float) - np.asarray(image, dtype=float)
    assert np.abs(added - attack.pattern(image.size)).max() <= 0.5 and np.abs(added).max() >= 10
    assert (attack.pattern((70, 50)) == attack.pattern((96, 64))[:50, :70]).all(), "cut off at the edge"


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_gray_images_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"an image of mode '{mode}' has none; convert it to 'RGB'"):
        FTrojan()(Image.new(mode, (40, 40)))


def test_bad_arguments_are_named() -> None:
    for value in (0, -3, float("inf")):
        with pytest.raises(ValueError, match=f"magnitude={value}"):
            FTrojan(magnitude=value)
