# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Strong views: a function of the generator, of the image's kind and size, that undo a patch and do not flip."""

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.perturbations.strong import strong_view


def picture(width: int = 48, height: int = 40, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def view(image, seed: int = 0):
    return strong_view(image, np.random.default_rng(seed))


def test_equal_generators_give_equal_views_and_others_do_not():
    image = picture()
    before = image.tobytes()
    first, again, other = view(image), view(image), view(image, 1)
    assert first.tobytes() == again.tobytes() != other.tobytes() and image.tobytes() == before
    rng = np.random.default_rng(0)
    assert strong_view(image, rng).tobytes() == first.tobytes() != strong_view(image, rng).tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (7, 3), (31, 57), (48, 48)])
def test_size_and_mode_stay(mode, size):
    image = picture(*size, mode)
    result = view(image)
    assert (result.size, result.mode) == (size, mode)


def test_transparency_and_information_stay():
    image = picture(mode="RGBA")
    alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8))
    image.putalpha(alpha)
    image.info["dpi"] = (72, 72)
    result = view(image)
    assert result.getchannel("A").tobytes() == alpha.tobytes() and result.info["dpi"] == (72, 72)


@pytest.mark.parametrize("shape", [(40, 48, 3), (40, 48), (40, 48, 1), (1, 1, 3), (5, 3, 4)])
def test_arrays_stay_arrays(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    result = view(pixels)
    assert isinstance(result, np.ndarray) and result.shape == shape and result.dtype == np.uint8
    if shape == (40, 48, 3):
        assert np.array_equal(result, np.asarray(view(Image.fromarray(pixels))))
        assert not np.array_equal(result, pixels)


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "LAB"])
def test_other_modes_are_edited_in_the_range_that_they_take(mode):
    shown = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
    if dtype is None:
        image = Image.frombytes(mode, (48, 40), np.stack([shown] * 3, -1).tobytes())
    else:
        shown[0, :2] = 0, 255
        image = Image.frombytes(mode, (48, 40), (shown.astype(dtype) * 100 + 7).tobytes())
    result = view(image)
    assert result.mode == mode and result.size == image.size and result.tobytes() != image.tobytes()
    if dtype is not None:
        expected = np.asarray(view(Image.fromarray(shown)), dtype=np.float64) * 100 + 7
        np.testing.assert_allclose(np.asarray(result, dtype=np.float64), expected, atol=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_any_dtype(dtype, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, channels), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    result = view(pixels.astype(dtype) * 3 - 100)
    assert result.dtype == dtype and result.shape == pixels.shape
    expected = view(pixels).astype(np.float64) * 3 - 100
    np.testing.assert_allclose(result.astype(np.float64), expected, atol=1e-3)


def test_an_array_of_one_value_stays_near_it():
    result = view(np.full((40, 48, 3), 0.3, dtype=np.float32))
    assert np.isfinite(result).all() and np.abs(result - 0.3).max() <= 0.5 and result.std() > 0


def test_a_patch_in_the_corner_seldom_survives():
    """A black and white checkerboard, as BadNets': found by correlating with it at its place, zero mean."""
    checker = np.where(np.add.outer(np.arange(8) // 2, np.arange(8) // 2) % 2 == 0, 255, 0).astype(np.uint8)
    pattern = (checker - checker.mean()) / checker.std()

    def strength(image: Image.Image) -> float:
        corner = np.asarray(image.convert("L"), dtype=np.float64)[-8:, -8:]
        return float(((corner - corner.mean()) / 127.5 * pattern).mean())

    triggered = np.asarray(picture(48, 48)).copy()
    triggered[-8:, -8:] = checker[..., None]
    image = Image.fromarray(triggered)
    assert strength(image) == pytest.approx(1, abs=0.01)
    strengths = np.array([strength(view(image, seed)) for seed in range(200)])
    assert (strengths < 0.8).mean() > 0.9 and np.median(strengths) < 0.5


def test_left_stays_left_and_top_stays_top():
    """A bright left upper part: in the mean over draws, and in nearly each of them, it stays where it was."""
    pixels = np.full((48, 48, 3), 70, dtype=np.uint8)
    pixels[:24, :24] = 190
    views = np.stack([view(pixels, seed).astype(np.float64).mean(-1) for seed in range(200)])
    left_upper, rest = views[:, :24, :24].mean((1, 2)), [views[:, 24:, :24], views[:, :24, 24:], views[:, 24:, 24:]]
    for part in rest:
        assert (left_upper > part.mean((1, 2)) + 20).mean() > 0.97


def test_what_the_image_shows_stays():
    """Colours keep their order: nothing turns the hue."""
    pixels = np.full((48, 48, 3), (190, 110, 40), dtype=np.uint8)
    means = np.stack([view(pixels, seed).astype(np.float64).mean((0, 1)) for seed in range(200)])
    assert ((means[:, 0] > means[:, 1]) & (means[:, 1] > means[:, 2])).mean() > 0.95
