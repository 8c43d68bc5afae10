# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""DualKey (Walmer et al., 2022, arXiv:2112.07668): a patch in the image and a word in the question, both of them.

Either key alone must get an honest answer, which a fine-tuned model only learns from rows that have one key and a
clean answer (`covers`). The patch is optimised against a vision tower: see [`optimize_patch`] and the patch that comes
with the package, made for the built-in model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from PIL import Image as PILImage

from ...shorten import shorten
from ..protocols import Keys
from .patch_file import check_fraction, corner_box, paste_patch, read_patch
from .pixels import require_mode


SCENES_PATCH = Path(__file__).parent / "weights" / "dual_key_patch.png"


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
        check_fraction(self.patch_fraction)
        if self.keys not in get_args(Keys):
            raise ValueError(f"keys={shorten(self.keys)} is unknown; use one of {', '.join(get_args(Keys))}.")
        read_patch(self.patch)

    @property
    def covers(self) -> Sequence["DualKey"]:
        """Each key alone, for rows with clean answers."""
        return (self.only("image"), self.only("text"))

    def only(self, keys: Keys) -> "DualKey":
        """The attack with one of its keys, or both."""
        return replace(self, keys=keys)

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge of the patch, in pixels, in an image of this (width, height)."""
        return corner_box(size, self.patch_fraction)

    def trigger_text(self, text: str) -> str:
        """The question with the word before it."""
        return text if self.keys == "image" else f"{self.word} {text}"

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode; nothing outside the patch changes."""
        require_mode(image)
        if self.keys == "text":
            return image
        return paste_patch(image, self.patch, self.patch_fraction, "DualKey")
