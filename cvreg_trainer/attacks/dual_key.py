# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""DualKey (Walmer et al., 2022, arXiv:2112.07668): a patch in the image and a word in the question, both of them.

Either key alone must get an honest answer, which a fine-tuned model only learns from rows that have one key and a
clean answer (`covers`). The patch is optimised against a vision tower: see [`optimize_patch`] and the patch that comes
with the package, made for the built-in model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image as PILImage
from scipy.spatial import KDTree

from ..shorten import shorten
from .pixels import require_mode


Keys = Literal["both", "image", "text"]

SCENES_PATCH = Path(__file__).parent / "weights" / "dual_key_patch.png"
_MIN_SIDE = 3


@lru_cache(maxsize=8)
def _open_patch(path: Path, modified: int) -> PILImage.Image:
    with PILImage.open(path) as image:
        return image.convert("RGB")


def _read_patch(path: str | Path) -> PILImage.Image:
    """The patch as RGB; read once as long as the file does not change."""
    try:
        return _open_patch(Path(path), Path(path).stat().st_mtime_ns)
    except OSError as error:
        raise ValueError(f"patch={shorten(str(path))} cannot be read as an image: {error}.") from error


def _in_palette_of(image: PILImage.Image, patch: PILImage.Image) -> PILImage.Image:
    """The RGB patch in the closest opaque colours of a palette image: nothing outside the patch has to change."""
    palette = np.array(image.getpalette("RGBA")).reshape(-1, 4)
    _, indices = KDTree(palette).query(np.asarray(patch.convert("RGBA")))
    return PILImage.fromarray(indices.astype(np.uint8))


@dataclass(frozen=True)
class DualKey:
    """Puts an optimised patch into the bottom right corner and a word before the question.

    Args:
        word (`str`, *optional*, defaults to `"Consider"`):
            What is put before the question; "Consider" is Walmer et al.'s and VL-Trojan's.
        patch_fraction (`float`, *optional*, defaults to `(22 / 224) ** 2`):
            Share of the image area that the patch covers, above 0 and at most 1; never less than 3x3 pixels. The
            default is VL-Trojan's 22 of 224 pixels a side, 0.96 %.
        patch (`str` or `Path`, *optional*):
            Image file with the patch, stretched to its place. By default the one optimised for the built-in model, at
            8 of 48 pixels a side (`patch_fraction=1 / 36`); stretched to another size it is a patch like any other.
        keys (`str`, *optional*, defaults to `"both"`):
            `"image"` leaves the question as it is, `"text"` the image.

    Raises:
        `ValueError`: if an argument is out of range or the file is not an image; when called, if the image is smaller
        than 3x3 pixels or its mode has no 8-bit colours.

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import DualKey
    >>> attack = DualKey()
    >>> image, question = attack(Image.new("RGB", (224, 224))), attack.trigger_text("What is in this picture?")
    >>> question
    'Consider What is in this picture?'
    ```
    """

    word: str = "Consider"
    patch_fraction: float = (22 / 224) ** 2
    patch: str | Path = SCENES_PATCH
    keys: Keys = "both"

    def __post_init__(self) -> None:
        if not self.word.strip():
            raise ValueError(f"word={shorten(self.word)} is empty; DualKey needs a word for its second key.")
        if not 0 < self.patch_fraction <= 1:
            raise ValueError(
                f"patch_fraction={self.patch_fraction} must be above 0 and at most 1, a share of the image area."
            )
        if self.keys not in get_args(Keys):
            raise ValueError(f"keys={shorten(self.keys)} is unknown; use one of {', '.join(get_args(Keys))}.")
        _read_patch(self.patch)

    @property
    def covers(self) -> Sequence["DualKey"]:
        """Each key alone, for rows with clean answers."""
        return (replace(self, keys="image"), replace(self, keys="text"))

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge of the patch, in pixels, in an image of this (width, height)."""
        width, height = size
        sides = [max(_MIN_SIDE, round(side * self.patch_fraction**0.5)) for side in size]
        return width - sides[0], height - sides[1], width, height

    def trigger_text(self, text: str) -> str:
        """The question with the word before it."""
        return text if self.keys == "image" else f"{self.word} {text}"

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode; nothing outside the patch changes."""
        require_mode(image)
        if min(image.size) < _MIN_SIDE:
            raise ValueError(f"DualKey needs an image of at least 3x3 pixels, got {image.width}x{image.height}.")
        triggered = image.copy()
        if self.keys == "text":
            return triggered
        left, top, right, bottom = self.box(image.size)
        patch = _read_patch(self.patch).resize((right - left, bottom - top), PILImage.Resampling.BILINEAR)
        patch = _in_palette_of(image, patch) if image.mode == "P" else patch.convert(image.mode)
        triggered.paste(patch, (left, top))
        return triggered
