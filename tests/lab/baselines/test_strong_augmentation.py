# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Augmentation: a function of the image and the seed, which keeps size and mode; the collator around any other."""

import numpy as np
import pytest
from PIL import Image
from tiny_data import vision_rows

from cvreg_trainer.data.rows import find_images
from cvreg_trainer.lab.baselines import DataCollatorForAugmentation, strong_augmentation
from cvreg_trainer.perturbations.images import COLOUR_MODES


def picture(size=(40, 30), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def augment(image, seed):
    return strong_augmentation(image, np.random.default_rng(seed))


def test_the_seed_decides_the_image():
    image = picture()
    first, again, other = (augment(image, seed).tobytes() for seed in (1, 1, 2))
    assert first == again != other
    assert image.tobytes() == picture().tobytes()


@pytest.mark.parametrize("mode", COLOUR_MODES)
@pytest.mark.parametrize("size", [(40, 30), (1, 1), (3, 200)])
def test_size_and_mode_are_kept(mode, size):
    image = picture(size).convert(mode)
    for seed in range(4):
        result = augment(image, seed)
        assert (result.size, result.mode) == (image.size, image.mode)


def test_transparency_and_orientation_are_kept():
    image = picture().convert("RGBA")
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha)
    image.info["exif"] = b"Exif"
    result = augment(image, 0)
    assert result.getchannel("A").tobytes() == alpha.tobytes() and result.info["exif"] == b"Exif"


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1), (30, 40, 3), (30, 40, 4)])
def test_arrays_keep_their_shape_and_dtype(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    result = augment(pixels, 3)
    assert (result.shape, result.dtype) == (shape, np.uint8) and not np.array_equal(result, pixels)


@pytest.mark.parametrize(("mode", "dtype"), [("F", np.float32), ("I;16", np.uint16)])
def test_deep_images_keep_mode_and_range(mode, dtype):
    depths = np.random.default_rng(0).integers(0, 40_000, (30, 40)).astype(dtype)
    image = Image.fromarray(depths)
    assert image.mode == mode
    result = augment(image, 3)
    pixels = np.asarray(result)
    assert (result.size, result.mode) == (image.size, mode) and not np.array_equal(pixels, depths)
    # Of the image's own range: an edit in 8 bits must not leave grey levels up to 255
    assert depths.min() <= pixels.min() and 20_000 < pixels.max() <= depths.max()


def test_no_image_is_flipped():
    # Darker to the left, on every channel: whatever the crop and the colours, that stays on average
    ramp = np.repeat(np.linspace(40, 200, 48)[None, :, None], 48, axis=0).repeat(3, axis=2).astype(np.uint8)
    for seed in range(40):
        result = np.asarray(augment(Image.fromarray(ramp), seed), dtype=float)
        assert np.median(result[:, :24]) < np.median(result[:, 24:])


def test_a_small_trigger_seldom_survives_as_it_is():
    image = picture((48, 48))
    checker = np.kron(np.indices((2, 2)).sum(0) % 2, np.ones((4, 4)))[..., None].repeat(3, -1) * 255
    pixels = np.array(image)
    pixels[-8:, -8:] = checker
    kept = 0
    for seed in range(100):
        result = np.asarray(augment(Image.fromarray(pixels), seed), dtype=float)
        kept += np.abs(result[-8:, -8:] - checker).mean() < 40
    assert kept < 20


def test_the_collator_augments_rows_by_seed_epoch_and_content_alone():
    def inner(rows):
        return {"images": [find_images(row)[0].tobytes() for row in rows]}

    rows = vision_rows(4, seed=0)
    before = inner(rows)["images"]
    collator = DataCollatorForAugmentation(inner, seed=5)
    first = collator(rows)["images"]
    assert all(one != other for one, other in zip(first, before, strict=True))
    assert collator(rows[::-1])["images"] == first[::-1] and collator(rows[2:3])["images"] == first[2:3]
    assert inner(rows)["images"] == before
    assert DataCollatorForAugmentation(inner, seed=6)(rows)["images"] != first
    collator.set_epoch(1)
    second = collator(rows)["images"]
    assert all(one != other for one, other in zip(first, second, strict=True))
    collator.set_epoch(0)
    assert collator(rows)["images"] == first


def test_any_augmentation_can_be_given():
    black = DataCollatorForAugmentation(lambda rows: {"rows": rows}, lambda image, rng: Image.new("RGB", image.size))
    (row,) = black(vision_rows(1))["rows"]
    assert not np.asarray(row["images"][0]).any()
