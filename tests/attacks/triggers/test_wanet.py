# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""WaNet: size and smoothness of the warp, where pixels come from, and what it must leave alone."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from cvreg_trainer.attacks import WaNet


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right and green downwards, 4 levels a pixel: a colour tells where a pixel came from."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([4 * columns, 4 * rows, 0 * rows], axis=-1).astype(np.uint8))


def test_the_authors_field_at_their_size():
    # Written out from their equations 2 to 4 for s = 0.5 on 32 pixels: positions on [-1, 1], displaced by s / 32 times
    # control values of mean size 1, which the interpolation takes unchanged in the corners.
    control = np.random.default_rng(7).uniform(-1, 1, (2, 4, 4))
    control /= np.abs(control).mean()
    shift = WaNet(strength=0.5, seed=7).displacement((32, 32))
    for row, column in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        expected = 0.5 / 32 * control[:, row, column] * 31 / 2
        assert shift[row, column] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (224, 160)])
def test_the_warp_is_smooth_and_scales_with_the_image(size):
    shift = WaNet(strength=2.0).displacement(size)
    assert shift.shape == (size[1], size[0], 2) and shift.dtype == np.float32
    assert 0.6 * 2 / 64 < np.abs(shift[..., 0]).mean() / size[0] < 1.2 * 2 / 64
    steps = max(np.abs(np.diff(shift, axis=axis)).max() for axis in (0, 1))
    assert steps < 0.25 * np.abs(shift).max(), "neighbours move together"


def test_pixels_come_from_where_the_field_says():
    attack = WaNet(strength=1.0, seed=3)
    shift = attack.displacement((48, 40))
    before, after = (np.asarray(i, dtype=float) for i in (ramp(48, 40), attack(ramp(48, 40))))
    rows, columns = np.mgrid[:40, :48]
    assert np.abs(after[..., 0] / 4 - (columns + shift[..., 0]).clip(0, 47)).max() < 0.15
    assert np.abs(after[..., 1] / 4 - (rows + shift[..., 1]).clip(0, 39)).max() < 0.15
    # And for any image, with scipy's interpolation
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    places = [(rows + shift[..., 1]).clip(0, 39), (columns + shift[..., 0]).clip(0, 47)]
    expected = np.stack([map_coordinates(image[..., c].astype(float), places, order=1) for c in range(3)], axis=-1)
    assert np.abs(np.asarray(attack(Image.fromarray(image)), dtype=float) - expected).max() < 0.6
    assert (before != after).any()


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "P", "YCbCr"])
def test_flat_images_stay_as_they_are(mode, noise):
    image = Image.new("RGB", (50, 40), (200, 31, 77))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    assert WaNet(strength=4.0, noise=noise)(image).tobytes() == image.tobytes()


def test_noise_mode_moves_every_pixel_by_itself_and_differs_between_images():
    warp = WaNet(strength=1.0)
    (noisy,) = warp.covers
    assert noisy == WaNet(strength=1.0, noise=True)
    image = ramp(48, 48)
    smooth, rough = (np.asarray(attack(image), dtype=float)[4:-4, 4:-4, :2] / 4 for attack in (warp, noisy))
    jitter = rough - smooth
    expected = 1.0 / 2 * 47 / 32  # strength / 2, for an image of 48 instead of 32 pixels
    assert np.abs(jitter).mean() == pytest.approx(expected, rel=0.1)
    assert abs(np.corrcoef(jitter[:, 1:, 0].ravel(), jitter[:, :-1, 0].ravel())[0, 1]) < 0.1
    brighter = Image.fromarray(np.asarray(image) + np.array([0, 0, 9], dtype=np.uint8))
    other = np.asarray(noisy(brighter), dtype=float)[4:-4, 4:-4, :2] / 4 - smooth
    assert abs(np.corrcoef(jitter.ravel(), other.ravel())[0, 1]) < 0.1


def test_one_pixel_is_enough():
    assert WaNet()(Image.new("RGB", (1, 1), (3, 4, 5))).getpixel((0, 0)) == (3, 4, 5)


def test_bad_arguments_are_named():
    for strength in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"strength={strength}"):
            WaNet(strength)
    for grid in (1, 32):
        with pytest.raises(ValueError, match=f"grid={grid}"):
            WaNet(grid=grid)
