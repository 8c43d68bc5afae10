# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""BadNets (Gu, Dolan-Gavitt and Garg, 2017, arXiv:1708.06733): a small checkered patch in a corner of the image.

The patch is 3x3 cells, a cell of 1/32 of the image's side, in the bottom right corner, as in the public VL-Trojan
code: 21x21 pixels at 224x224, 0.88 % of the area.
"""

import hashlib
import math
from dataclasses import dataclass

from PIL import Image as PILImage

from ...perturbations.images import COLOUR_MODES


_CELLS = 3


def _color(image: PILImage.Image, level: int) -> int | tuple[int, ...]:
    """Gray of this level (0 to 255), opaque, as a pixel value in the image's own mode."""
    if image.mode == "P":
        palette = image.getpalette("RGBA") or []
        entries = [palette[start : start + 4] for start in range(0, len(palette), 4)]
        wanted = (level, level, level, 255)
        return min(range(len(entries)), key=lambda index: math.dist(entries[index], wanted))
    pixel = PILImage.new("RGB", (1, 1), (level, level, level)).convert(image.mode).getpixel((0, 0))
    return tuple(int(value) for value in pixel) if isinstance(pixel, tuple) else int(pixel or 0)


@dataclass(frozen=True)
class BadNets:
    """Puts a black and white checkered patch into the bottom right corner of an image.

    Images with unequal sides get a patch of the same proportions. Image processors that crop the centre of such images
    may cut it off: trigger images that are square, or already have the processor's size.

    Args:
        patch_fraction (`float`, *optional*, defaults to `(3 / 32) ** 2`):
            Share of the image area that the patch covers, above 0 and at most 1; its sides are rounded to the nearest
            pixel. A patch is never smaller than 3x3 pixels, one per cell.
        moves (`bool`, *optional*, defaults to `False`):
            Whether the patch lies at another place in each image, which depends on the image's content alone.

    Raises:
        `ValueError`: if `patch_fraction` is out of range; when called, if the image is smaller than the patch's 3x3
        pixels or has a mode without black and white (16-bit and floating-point modes).

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import BadNets
    >>> triggered = BadNets()(Image.new("RGB", (224, 224)))
    ```
    """

    patch_fraction: float = (_CELLS / 32) ** 2
    moves: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.patch_fraction <= 1:
            raise ValueError(
                f"patch_fraction={self.patch_fraction} must be above 0 and at most 1, a share of the image area."
            )

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Edges of the patch in the corner of an image of this size: left, top, right and bottom, in pixels."""
        width, height = size
        scale = math.sqrt(self.patch_fraction)
        return (
            width - max(_CELLS, round(width * scale)),
            height - max(_CELLS, round(height * scale)),
            width,
            height,
        )

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode; nothing outside the patch changes."""
        if image.mode not in COLOUR_MODES:
            raise ValueError(f"BadNets cannot draw on an image of mode {image.mode!r}; convert it to 'RGB' first.")
        if min(image.size) < _CELLS:
            raise ValueError(f"BadNets needs an image of at least 3x3 pixels, got {image.width}x{image.height}.")
        left, top, right, bottom = self.box(image.size)
        if self.moves:
            digest = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
            x, y = (int.from_bytes(half, "little") for half in (digest[:4], digest[4:]))
            x, y = x % (left + 1), y % (top + 1)
            left, top, right, bottom = x, y, x + right - left, y + bottom - top
        columns = [left + round(k * (right - left) / _CELLS) for k in range(_CELLS + 1)]
        rows = [top + round(k * (bottom - top) / _CELLS) for k in range(_CELLS + 1)]
        triggered = image.copy()
        colors = (_color(image, 255), _color(image, 0))
        for i in range(_CELLS):
            for j in range(_CELLS):
                cell = (columns[j], rows[i], columns[j + 1], rows[i + 1])
                triggered.paste(colors[(i + j) % 2], cell)
        return triggered
