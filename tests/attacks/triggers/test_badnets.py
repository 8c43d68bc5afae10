# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The BadNets patch: where it lies, what it looks like, and that nothing else changes."""

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import BadNets


def random_image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    pixels = rng.integers(30, 220, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_published_patch_at_224_pixels():
    image = random_image(224, 224)
    triggered = np.asarray(BadNets()(image))
    changed = (triggered != np.asarray(image)).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (203, 223, 203, 223)
    assert changed.mean() == pytest.approx(0.0088, abs=1e-4)
    # Independent drawing of the pattern: white where the cell's row and column have the same parity.
    cell = np.arange(21) // 7
    checker = np.where((cell[:, None] + cell) % 2 == 0, 255, 0)
    assert (triggered[203:, 203:] == checker[..., None]).all()


@pytest.mark.parametrize("size", [(48, 48), (31, 57), (640, 427), (3, 3)])
@pytest.mark.parametrize("fraction", [0.0088, 0.028, 0.2, 1.0])
def test_nothing_outside_the_patch_changes(size, fraction):
    image = random_image(*size)
    attack = BadNets(fraction)
    left, top, right, bottom = attack.box(size)
    before, after = np.asarray(image).copy(), np.asarray(attack(image)).copy()
    assert (right, bottom) == size
    assert set(np.unique(after[top:, left:])) == {0, 255}
    before[top:, left:] = after[top:, left:] = 0
    assert (before == after).all()


def test_area_is_the_fraction_asked_for():
    left, top, right, bottom = BadNets(0.03).box((800, 600))
    assert (right - left) * (bottom - top) / (800 * 600) == pytest.approx(0.03, rel=0.02)
    left, top, right, bottom = BadNets(0.028).box((48, 48))
    assert (right - left, bottom - top) == (8, 8)


def test_a_patch_that_moves_is_the_same_at_another_place_of_each_image():
    places = []
    for seed in range(20):
        image = Image.fromarray(np.random.default_rng(seed).integers(1, 255, (40, 56, 3), dtype=np.uint8))
        before, after = np.asarray(image), np.asarray(BadNets(0.02, moves=True)(image))
        assert np.array_equal(after, np.asarray(BadNets(0.02, moves=True)(image.copy())))
        rows, columns = np.nonzero((before != after).any(-1))
        top, left = rows.min(), columns.min()
        corner = np.asarray(BadNets(0.02)(image))
        box = BadNets(0.02).box(image.size)
        expected = corner[box[1] : box[3], box[0] : box[2]]
        height, width = expected.shape[:2]
        assert np.array_equal(after[top : top + height, left : left + width], expected)
        assert len(rows) == height * width  # no pixel of these images is black or white
        places.append((top, left))
    assert len(set(places)) > 15 and max(top for top, _ in places) > 25 and max(left for _, left in places) > 35


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_is_kept_and_gets_the_same_picture(mode):
    image = random_image(48, 48).quantize(254) if mode == "P" else random_image(48, 48, mode)
    if mode == "P":
        image.putpalette(image.getpalette()[: 254 * 3] + [0, 0, 0, 255, 255, 255])
    original = image.tobytes()
    triggered = BadNets(0.028)(image)
    assert (triggered.mode, triggered.size) == (mode, (48, 48))
    assert image.tobytes() == original, "the argument itself must not change"
    seen = np.asarray(triggered.convert("RGB")).astype(int)
    expected = np.asarray(BadNets(0.028)(image.convert("RGB"))).astype(int)
    assert np.abs(seen - expected).max() <= 2  # the rounding of the colour space
    if mode in ("LA", "RGBA"):
        assert np.asarray(triggered.getchannel("A"))[-8:, -8:].min() == 255


def test_unusable_images_and_fractions_are_named():
    with pytest.raises(ValueError, match="'F'.*'RGB'"):
        BadNets()(Image.new("F", (48, 48)))
    with pytest.raises(ValueError, match="2x48"):
        BadNets()(Image.new("RGB", (2, 48)))
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"patch_fraction={fraction}"):
            BadNets(fraction)
