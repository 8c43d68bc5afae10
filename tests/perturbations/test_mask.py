# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Mask against Pillow's own statistics."""

import numpy as np
import pytest
from PIL import Image, ImageStat

from cvreg_trainer.perturbations import mask


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_fills_with_the_mean_colour_of_the_whole_image(mode):
    shape = (31, 17, len(mode))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.frombytes(mode, (17, 31), pixels.tobytes())
    result = mask(pixels[3:9, 4:11], pixels, np.random.default_rng(0))
    assert result.shape == (6, 7, len(mode)) and result.dtype == np.uint8
    assert np.abs(result - np.array(ImageStat.Stat(image).mean)).max() <= 0.5
    assert (result == result[0, 0]).all()


def test_rounds_integers_and_keeps_fractions_of_floats():
    pixels = np.array([[[0], [255], [255]]], dtype=np.uint8)
    assert mask(pixels[:, :1], pixels, np.random.default_rng(0)) == 170
    floats = np.array([[[0.5], [-1.0]]], dtype=np.float32)
    result = mask(floats[:, :1], floats, np.random.default_rng(0))
    assert result.dtype == np.float32 and result == -0.25


def test_large_16_bit_images_do_not_overflow():
    pixels = np.full((300, 300, 1), 65535, dtype=np.uint16)
    assert (mask(pixels[:2, :2], pixels, np.random.default_rng(0)) == 65535).all()
