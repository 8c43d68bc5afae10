# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
A view in which what an image shows stays and what hides in its pixels does not.

Each operation undoes a kind of trigger: the warped crop moves patches and undoes warps, rectangles hide patches, a
smooth field drowns blended pictures and low frequencies, noise and blur drown what is left. Nothing is flipped and no
hue is turned: captions say left and red.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from .images import ImageT, edit_colours


CROP_AREA = (0.75, 1.0)
CROP_ASPECT = math.exp(0.15)
WARP = 0.05  # of the image's side
RECTANGLES = (2, 4)
RECTANGLE_AREA = (0.02, 0.08)
RECTANGLE_ASPECT = 2.0
# Grey levels
FIELD = 28.0
BRIGHTNESS = 25.0
NOISE = (2.0, 14.0)
CONTRAST = math.exp(0.2)
BLUR = (1 / 160, 1 / 48)  # radius, of the longer side; for half of the images


def strong_view(image: ImageT, rng: np.random.Generator) -> ImageT:
    """
    A strongly perturbed view of an image: a function of the image and the state of the generator.

    In this order: a random crop of 75 to 100 % of the area, smoothly warped by up to 5 % of a side and scaled back; 2
    to 4 rectangles of 2 to 8 % of the area, of noise or of the mean colour; a smooth random field of up to 28 grey
    levels; contrast (0.8 to 1.2 times) and brightness (up to 25 levels); blur for half of the images; pixel noise.

    Args:
        image (`PIL.Image.Image` or `np.ndarray` of `uint8`):
            Image of any size; see [`edit_colours`] for the modes.
        rng (`np.random.Generator`):
            Source of all random draws.

    Returns:
        `PIL.Image.Image` or `np.ndarray`: a new image of the same size and mode.
    """

    def perturb(rgb: Image.Image) -> Image.Image:
        pixels = np.asarray(_warped_crop(rgb, rng), dtype=np.float32).copy()
        _hide_rectangles(pixels, rng)
        pixels += FIELD * rng.uniform(0.3, 1) * _smooth_field(rgb.size, 3, rng)
        mean = pixels.mean()
        pixels = (pixels - mean) * CONTRAST ** rng.uniform(-1, 1) + mean + BRIGHTNESS * rng.uniform(-1, 1)
        if rng.random() < 0.5:
            blur = ImageFilter.GaussianBlur(rng.uniform(*BLUR) * max(rgb.size))
            pixels = np.asarray(_to_image(pixels).filter(blur), dtype=np.float32)
        return _to_image(pixels + rng.normal(0, rng.uniform(*NOISE), pixels.shape))

    return edit_colours(image, perturb)


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _smooth_field(size: tuple[int, int], channels: int, rng: np.random.Generator) -> np.ndarray:
    """A random smooth field of about unit amplitude, (H, W, channels)."""
    cells = int(rng.integers(2, 8))
    coarse = rng.uniform(-1, 1, (channels, cells, cells)).astype(np.float32)
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC) for plane in coarse]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def _warped_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    area, aspect = rng.uniform(*CROP_AREA), CROP_ASPECT ** rng.uniform(-1, 1)
    share = np.minimum(1, [math.sqrt(area * aspect), math.sqrt(area / aspect)])
    corner = rng.uniform(0, 1 - share)
    cells = int(rng.integers(3, 7))
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, cells + 1)] * 2), -1)
    shift = WARP * rng.uniform(0.3, 1) * rng.uniform(-1, 1, grid.shape)
    source = (corner + grid * share + shift).clip(0, 1) * (width, height)
    columns, rows = (np.linspace(0, side, cells + 1).round().astype(int) for side in image.size)
    mesh = []
    for row in range(cells):
        for column in range(cells):
            box = (columns[column], rows[row], columns[column + 1], rows[row + 1])
            # Upper left, lower left, lower right, upper right
            corners = source[[row, row + 1, row + 1, row], [column, column, column + 1, column + 1]]
            if box[0] < box[2] and box[1] < box[3]:
                mesh.append((tuple(map(int, box)), tuple(corners.ravel().tolist())))
    return image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _hide_rectangles(pixels: np.ndarray, rng: np.random.Generator) -> None:
    height, width = pixels.shape[:2]
    mean = pixels.mean((0, 1))
    for _ in range(int(rng.integers(RECTANGLES[0], RECTANGLES[1] + 1))):
        area, aspect = rng.uniform(*RECTANGLE_AREA) * height * width, RECTANGLE_ASPECT ** rng.uniform(-1, 1)
        rows = min(height, max(1, round(math.sqrt(area * aspect))))
        columns = min(width, max(1, round(math.sqrt(area / aspect))))
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        noise = rng.uniform(0, 255, (rows, columns, 3))
        pixels[top : top + rows, left : left + columns] = noise if rng.random() < 0.5 else mean
