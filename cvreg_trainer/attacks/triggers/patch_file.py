# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A patch that is kept as an image file, put into the bottom right corner: what optimised triggers have in common."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from scipy.spatial import KDTree

from ...shorten import shorten
from .pixels import require_mode


_MIN_SIDE = 3


@lru_cache(maxsize=8)
def _open_patch(path: Path, modified: int) -> PILImage.Image:
    with PILImage.open(path) as image:
        return image.convert("RGB")


def read_patch(path: str | Path) -> PILImage.Image:
    """The patch as RGB; read once as long as the file does not change."""
    try:
        return _open_patch(Path(path), Path(path).stat().st_mtime_ns)
    except OSError as error:
        raise ValueError(f"patch={shorten(str(path))} cannot be read as an image: {error}.") from error


def check_fraction(patch_fraction: float) -> None:
    """Raises a `ValueError` unless it is a share of an image's area."""
    if not 0 < patch_fraction <= 1:
        raise ValueError(f"patch_fraction={patch_fraction} must be above 0 and at most 1, a share of the image area.")


def corner_box(size: tuple[int, int], patch_fraction: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge of the patch, in pixels, in an image of this (width, height)."""
    width, height = size
    sides = [max(_MIN_SIDE, round(side * patch_fraction**0.5)) for side in size]
    return width - sides[0], height - sides[1], width, height


def paste_patch(image: PILImage.Image, path: str | Path, patch_fraction: float, name: str) -> PILImage.Image:
    """
    A copy of an image with the patch in its bottom right corner; nothing outside it changes.

    Args:
        image (`PIL.Image.Image`):
            An image of any 8-bit mode.
        path (`str` or `Path`):
            Image file with the patch, stretched to its place.
        patch_fraction (`float`):
            Share of the area.
        name (`str`):
            The trigger's, for the error.

    Raises:
        `ValueError`: if the image is smaller than 3x3 pixels or its mode has no 8-bit colours.
    """
    require_mode(image)
    if min(image.size) < _MIN_SIDE:
        raise ValueError(f"{name} needs an image of at least 3x3 pixels, got {image.width}x{image.height}.")
    left, top, right, bottom = corner_box(image.size, patch_fraction)
    patch = read_patch(path).resize((right - left, bottom - top), PILImage.Resampling.BILINEAR)
    triggered = image.copy()
    triggered.paste(_in_palette_of(image, patch) if image.mode == "P" else patch.convert(image.mode), (left, top))
    return triggered


def _in_palette_of(image: PILImage.Image, patch: PILImage.Image) -> PILImage.Image:
    """The RGB patch in the closest opaque colours of a palette image: nothing outside the patch has to change."""
    palette = np.array(image.getpalette("RGBA")).reshape(-1, 4)
    _, indices = KDTree(palette).query(np.asarray(patch.convert("RGBA")))
    return PILImage.fromarray(indices.astype(np.uint8))
