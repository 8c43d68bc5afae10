# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The rectangle's distribution, and what a view keeps of the image."""

import io
import math
import pickle

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from scipy import stats

from cvreg_trainer.perturbations import OPERATIONS, PatchPerturbation


MODES = ["L", "LA", "La", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I;16B", "I", "F"]


def picture(mode: str = "RGB", size: tuple[int, int] = (37, 23), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    if mode == "F":
        return Image.fromarray(rng.uniform(-1, 1, size[::-1]).astype(np.float32))
    length = len(Image.new(mode, size).tobytes())
    return Image.frombytes(mode, size, rng.integers(0, 256, length, dtype=np.uint8).tobytes())


def changed_box(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of the smallest rectangle around all changes."""
    changed = (before != after).reshape(*before.shape[:2], -1).any(-1)
    ys, xs = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
    return ys[0], xs[0], ys[-1] - ys[0] + 1, xs[-1] - xs[0] + 1


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([PatchPerturbation().rectangle(900, 1200, rng) for _ in range(4000)])


def test_area_is_uniform_between_one_and_five_percent(boxes):
    areas = boxes[:, 2] * boxes[:, 3] / (900 * 1200)
    assert areas.min() >= 0.01 and areas.max() <= 0.05
    assert stats.kstest(areas, "uniform", args=(0.01, 0.04)).pvalue > 1e-3


def test_aspect_ratio_is_log_uniform_between_a_half_and_two(boxes):
    logs = np.log(boxes[:, 2] / boxes[:, 3])
    assert stats.kstest(logs, "uniform", args=(-math.log(2), 2 * math.log(2))).pvalue > 1e-3


@pytest.mark.parametrize(("axis", "length"), [(0, 900), (1, 1200)])
def test_position_is_uniform_inside_the_image(boxes, axis, length):
    starts, sides = boxes[:, axis], boxes[:, axis + 2]
    assert starts.min() >= 0 and (starts + sides).max() <= length
    spread = np.random.default_rng(1).uniform(
        size=len(boxes)
    )  # a draw inside the pixel makes the positions continuous
    assert stats.kstest((starts + spread) / (length - sides + 1), "uniform").pvalue > 1e-3


def test_rectangles_reach_all_borders_of_a_small_image():
    rng = np.random.default_rng(0)
    boxes = np.array([PatchPerturbation().rectangle(24, 24, rng) for _ in range(2000)])
    assert boxes[:, 0].min() == 0 and boxes[:, 1].min() == 0
    assert (boxes[:, 0] + boxes[:, 2]).max() == 24 and (boxes[:, 1] + boxes[:, 3]).max() == 24
    areas = boxes[:, 2] * boxes[:, 3]
    assert areas.min() >= 0.01 * 24 * 24 and areas.max() <= 0.05 * 24 * 24


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (3, 5000), (5000, 3)])
def test_elongated_images_keep_the_area(size):
    rng = np.random.default_rng(0)
    boxes = np.array([PatchPerturbation().rectangle(*size, rng) for _ in range(1000)])
    areas = boxes[:, 2] * boxes[:, 3] / (size[0] * size[1])
    assert areas.min() >= 0.01 and areas.max() <= 0.05
    assert stats.kstest(areas, "uniform", args=(0.01, 0.04)).statistic < 0.06
    assert (boxes[:, 2] <= size[0]).all() and (boxes[:, 3] <= size[1]).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 3), (1, 7)])
def test_tiny_images_lose_one_pixel_and_no_more(size):
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert PatchPerturbation().rectangle(*size, rng)[2:] == (1, 1)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_pixels_outside_the_rectangle_stay(operation):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before = image.copy()
    perturbation = PatchPerturbation(operations=[operation])
    for seed in range(30):
        view = perturbation(image, np.random.default_rng(seed))
        top, left, height, width = perturbation.rectangle(60, 80, np.random.default_rng(seed))
        box = changed_box(image, view)
        assert box[0] >= top and box[1] >= left
        assert box[0] + box[2] <= top + height and box[1] + box[3] <= left + width
        assert box[2] * box[3] <= 0.05 * 60 * 80
    assert np.array_equal(image, before)


def test_operations_are_drawn_equally_often():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 1), dtype=np.uint8)
    counts = dict.fromkeys(OPERATIONS, 0)
    for seed in range(600):
        view = PatchPerturbation()(image, np.random.default_rng(seed))
        top, left, height, width = PatchPerturbation().rectangle(40, 40, np.random.default_rng(seed))
        old, new = (x[top : top + height, left : left + width].ravel() for x in (image, view))
        if len(set(new)) == 1:
            counts["mask"] += 1
        else:
            counts["shuffle" if sorted(old) == sorted(new) else "noise"] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_pil_view_keeps_size_mode_and_alpha(mode, operation):
    image = picture(mode)
    image.info["note"] = "kept"
    before = image.tobytes()
    view = PatchPerturbation(operations=[operation])(image, np.random.default_rng(1))
    assert (view.mode, view.size, view.info) == (mode, image.size, {"note": "kept"})
    assert image.tobytes() == before
    old, new = np.asarray(image), np.asarray(view)
    *_, height, width = changed_box(old, new)
    assert height * width <= 0.05 * 37 * 23
    if mode in ("LA", "La", "RGBA"):
        assert np.array_equal(old[..., -1], new[..., -1])


def test_pil_image_and_array_get_the_same_pixels():
    image = picture()
    view = PatchPerturbation()(image, np.random.default_rng(4))
    assert np.array_equal(np.asarray(view), PatchPerturbation()(np.asarray(image), np.random.default_rng(4)))


def test_grey_arrays_keep_their_two_dimensions():
    grey = np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8)
    view = PatchPerturbation(operations=["noise"])(grey, np.random.default_rng(0))
    assert view.shape == (30, 30) and not np.array_equal(view, grey)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "I;16"])
def test_a_single_pixel_image_is_perturbed(mode):
    view = PatchPerturbation(operations=["shuffle"])(Image.new(mode, (1, 1)), np.random.default_rng(0))
    assert view.size == (1, 1)


def test_palette_and_1_bit_images_become_colours():
    perturbation = PatchPerturbation(operations=["noise"])
    palette = picture().quantize(16)
    view = perturbation(palette, np.random.default_rng(0))
    assert view.mode == "RGB"
    *_, height, width = changed_box(np.asarray(palette.convert("RGB")), np.asarray(view))
    assert height * width <= 0.05 * 37 * 23
    palette.info["transparency"] = 3
    assert perturbation(palette, np.random.default_rng(0)).mode == "RGBA"
    assert perturbation(picture("L").convert("1"), np.random.default_rng(0)).mode == "L"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "by hand"])
def test_exif_orientation_is_kept(form):
    image = picture(size=(40, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    if form == "by hand":
        image.getexif()[ExifTags.Base.Orientation] = 6
    else:
        file = io.BytesIO()
        image.save(file, form, exif=exif)
        image = Image.open(file)
    assert ImageOps.exif_transpose(image).size == (20, 40)
    view = PatchPerturbation()(image, np.random.default_rng(0))
    assert view.size == image.size  # Pillow turns TIFF by itself when it reads the pixels
    assert ImageOps.exif_transpose(view).size == (20, 40)


def test_a_view_is_a_function_of_the_generator_alone():
    perturbation = PatchPerturbation()
    image = np.asarray(picture(size=(64, 64)))
    first = perturbation(image, np.random.default_rng(5))
    assert np.array_equal(first, pickle.loads(pickle.dumps(perturbation))(image, np.random.default_rng(5)))
    assert not np.array_equal(first, perturbation(image, np.random.default_rng(6)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area_min": 0.0}, "`area_min` must be above 0 .* got 0.0"),
        ({"area_min": 1.5}, "`area_min` .* got 1.5"),
        ({"area_min": float("nan")}, "`area_min` .* got nan"),
        ({"area_min": 0.1}, r"`area_max` must lie between `area_min` \(0.1\) and 1, got 0.05"),
        ({"area_max": 1.01}, "got 1.01"),
        ({"operations": []}, "at least one of mask, noise, shuffle"),
        ({"operations": "mask"}, r"write, for example, \[\"mask\"\]"),
        ({"operations": ["mask", "shufle"]}, "'shufle'.*Did you mean 'shuffle'"),
        ({"operations": ["zzz"]}, "Choose from mask, noise, shuffle"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PatchPerturbation(**options)
