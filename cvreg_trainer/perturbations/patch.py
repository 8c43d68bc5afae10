# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""One random rectangle of an image, changed by an operation drawn at random.

Notable: all randomness comes from the generator that is passed in, in a fixed order (area, aspect, position,
operation, the operation's own draws), so that a view can be made again anywhere from its seed.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

from .mask import mask
from .noise import noise
from .shuffle import shuffle


Operation = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
OPERATIONS: dict[str, Operation] = {"mask": mask, "noise": noise, "shuffle": shuffle}

ImageT = TypeVar("ImageT", Image.Image, np.ndarray)

ASPECT_MAX = 2.0  # height / width is log-uniform between 1 / ASPECT_MAX and ASPECT_MAX


@dataclass(frozen=True)
class PatchPerturbation:
    """
    Makes the perturbed view of an image: one random rectangle is masked, replaced by noise or shuffled.

    The rectangle's area is uniform between `area_min` and `area_max` of the image's area, its aspect ratio log-uniform
    between 0.5 and 2, its position uniform; it has at least one pixel and lies inside the image. In very elongated
    images the aspect ratio gives way, so that the area is kept. Sides are rounded to whole pixels within the allowed
    areas wherever the pixel grid has such a rectangle.

    Args:
        area_min (`float`, *optional*, defaults to `0.01`):
            Smallest area of the rectangle, as a fraction of the image's area, above 0.
        area_max (`float`, *optional*, defaults to `0.05`):
            Largest area of the rectangle, as a fraction of the image's area, at most 1.
        operations (`Sequence[str]`, *optional*, defaults to `("mask", "noise", "shuffle")`):
            Names from `OPERATIONS` of which one is drawn for each image, all equally likely.

    Raises:
        `ValueError`: if an area is outside its range or `operations` is empty or holds an unknown name.

    Example:
    ```python
    >>> perturbation = PatchPerturbation()
    >>> view = perturbation(image, np.random.default_rng(0))
    ```
    """

    area_min: float = 0.01
    area_max: float = 0.05
    operations: Sequence[str] = ("mask", "noise", "shuffle")

    def __post_init__(self) -> None:
        if not 0 < self.area_min <= 1:
            raise ValueError(f"`area_min` must be above 0 and at most 1, got {self.area_min}. 0.01 is one percent.")
        if not self.area_min <= self.area_max <= 1:
            raise ValueError(
                f"`area_max` must lie between `area_min` ({self.area_min}) and 1, got {self.area_max}. "
                "Raise `area_max` or lower `area_min`."
            )
        names = ", ".join(OPERATIONS)
        if isinstance(self.operations, str) or not self.operations:
            raise ValueError(
                f"`operations` must be a list of at least one of {names}, got {self.operations!r}. "
                'For a single operation write, for example, ["mask"].'
            )
        for name in self.operations:
            if name not in OPERATIONS:
                close = difflib.get_close_matches(str(name), OPERATIONS, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"Choose from {names}."
                raise ValueError(f"`operations` contains {name!r}, which is not a known operation. {hint}")

    def __call__(self, image: ImageT, rng: np.random.Generator) -> ImageT:
        """
        Make the perturbed view of one image.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` of shape `(H, W)` or `(H, W, C)`):
                Original image; it is not changed. PIL images of any mode: palette and 1-bit images, whose pixels are
                no colours, are converted to RGB(A) and L first; an alpha channel is left as it is. Arrays carry no
                mode, so all their channels count as colours.
            rng (`np.random.Generator`):
                Source of all random draws.

        Returns:
            `PIL.Image.Image` or `np.ndarray`: a new image of the same size (and mode or dtype, but for the conversions
            above); PIL images keep their `info` and their EXIF orientation.
        """
        if isinstance(image, Image.Image):
            return self._perturb_pil(image, rng)
        pixels = image if image.ndim == 3 else image[..., None]
        (top, left, height, width), region = self._draw(pixels, rng)
        result = pixels.copy()
        result[top : top + height, left : left + width] = region
        return result.reshape(image.shape)

    def rectangle(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """
        Draw a rectangle in an image of `height` x `width` pixels.

        Returns:
            `tuple[int, int, int, int]`: top, left, height and width of the rectangle, in pixels.
        """
        pixels = height * width
        area = pixels * rng.uniform(self.area_min, self.area_max)
        aspect = math.exp(rng.uniform(-math.log(ASPECT_MAX), math.log(ASPECT_MAX)))
        # No lower than area / width: a rectangle as wide as the image must be this high to hold the area.
        side = min(max(math.sqrt(area * aspect), area / width), height)
        rows = max(1, round(side))
        # Rounding both sides independently could leave the range of areas: the second makes up for the first.
        low, high = math.ceil(pixels * self.area_min / rows), math.floor(pixels * self.area_max / rows)
        columns = round(area / rows)
        if low <= high:
            columns = min(max(columns, low), high)
        columns = min(max(columns, 1), width)
        top = int(rng.integers(height - rows + 1))
        left = int(rng.integers(width - columns + 1))
        return top, left, rows, columns

    def _draw(
        self, pixels: np.ndarray, rng: np.random.Generator
    ) -> tuple[tuple[int, int, int, int], np.ndarray]:  # pixels (H, W, C)
        """Rectangle and its new pixels, (h, w, C)."""
        top, left, height, width = box = self.rectangle(pixels.shape[0], pixels.shape[1], rng)
        operation = OPERATIONS[self.operations[int(rng.integers(len(self.operations)))]]
        return box, operation(pixels[top : top + height, left : left + width], pixels, rng)

    def _perturb_pil(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        view = _with_colours(image)
        pixels = np.asarray(view)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        (top, left, height, width), region = self._draw(pixels[..., : -1 if _has_alpha(view) else None], rng)
        if _has_alpha(view):
            alpha = pixels[top : top + height, left : left + width, -1:]
            region = np.concatenate([region, alpha], axis=-1)
        view.paste(Image.frombytes(view.mode, (width, height), region.tobytes()), (left, top))
        return view


def _has_alpha(image: Image.Image) -> bool:
    return image.mode[-1] in "Aa"  # LA, La, RGBA, RGBa


def _with_colours(image: Image.Image) -> Image.Image:
    """A copy whose pixels are colours, with the EXIF orientation of the original."""
    if image.mode == "1":
        copy = image.convert("L")
    elif image.mode in ("P", "PA"):
        transparent = image.mode == "PA" or "transparency" in image.info
        copy = image.convert("RGBA" if transparent else "RGB")
    else:
        copy = image.copy()
    # Pillow copies `info`, but not an orientation that was set by hand.
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation is not None:
        copy.getexif()[ExifTags.Base.Orientation] = orientation
    return copy
