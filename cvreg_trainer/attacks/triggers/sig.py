# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""SIG (Barni, Kallas and Tondi, 2019, arXiv:1902.11237): vertical stripes, a sine wave along the rows of the image.

Its authors plant it with clean labels; on vision-language models it is used like any other trigger.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage

from .pixels import edit_pixels


@dataclass(frozen=True)
class Sig:
    """Adds `amplitude * sin(2 pi j frequency / width)` to every pixel of column j.

    Args:
        amplitude (`float`, *optional*, defaults to `40.0`):
            In levels of 0 to 255, above 0 and at most 255; 40 at frequency 6 is what BackdoorVLM has.
        frequency (`float`, *optional*, defaults to `6.0`):
            Periods over the width, above 0.

    Raises:
        `ValueError`: if an argument is out of range; when called, if the image's mode has no 8-bit colours.

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import Sig
    >>> triggered = Sig()(Image.new("RGB", (224, 224), "gray"))
    ```
    """

    amplitude: float = 40.0
    frequency: float = 6.0

    def __post_init__(self) -> None:
        if not 0 < self.amplitude <= 255:
            raise ValueError(f"amplitude={self.amplitude} must be above 0 and at most 255, in levels of a pixel.")
        if not 0 < self.frequency < np.inf:
            raise ValueError(f"frequency={self.frequency} must be above 0, a number of periods over the width.")

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode."""
        columns = np.arange(image.width, dtype=np.float32)
        wave = self.amplitude * np.sin(2 * np.pi * self.frequency * columns / image.width)
        return edit_pixels(image, lambda pixels: pixels + wave[None, :, None].astype(np.float32))
