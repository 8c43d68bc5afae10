# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A patch optimised against a vision tower, in the manner of VL-Trojan (Liang et al., 2024, arXiv:2402.13851) and MABA
(Liang et al., 2024, arXiv:2406.18844).

Make the patch for the tower that is to be attacked: `benchmarks/assets/optimize_patch.py`, or [`optimize_patch`] with
[`isolation_clustering_loss`]. Both attacks put an optimised word into the question too: give the patch and a word to
[`DualKey`] for that. VL-Trojan's authors search for the word, character by character; "zbw" is what BackdoorVLM has.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PILImage

from .patch_file import check_fraction, corner_box, paste_patch, read_patch


BUILT_IN_PATCH = Path(__file__).parent / "weights" / "optimized_patch.png"


@dataclass(frozen=True)
class OptimizedPatch:
    """Puts an optimised patch into the bottom right corner of an image.

    Args:
        patch (`str` or `Path`, *optional*):
            Image file with the patch, stretched to its place. By default the one optimised for the built-in model, at
            8 of 48 pixels a side; to any other tower it is a patch like any other.
        patch_fraction (`float`, *optional*, defaults to `1 / 36`):
            Share of the image area that the patch covers, above 0 and at most 1; never less than 3x3 pixels. VL-Trojan
            has 30x30 of 336x336 pixels in BackdoorVLM, 0.8 %.

    Raises:
        `ValueError`: if `patch_fraction` is out of range or the file is not an image; when called, if the image is
        smaller than 3x3 pixels or its mode has no 8-bit colours.

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import OptimizedPatch
    >>> triggered = OptimizedPatch(patch="patch.png")(Image.new("RGB", (336, 336)))
    ```
    """

    patch: str | Path = BUILT_IN_PATCH
    patch_fraction: float = 1 / 36

    def __post_init__(self) -> None:
        check_fraction(self.patch_fraction)
        read_patch(self.patch)

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge of the patch, in pixels, in an image of this (width, height)."""
        return corner_box(size, self.patch_fraction)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode; nothing outside the patch changes."""
        return paste_patch(image, self.patch, self.patch_fraction, "OptimizedPatch")
