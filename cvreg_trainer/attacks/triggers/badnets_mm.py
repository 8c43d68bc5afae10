# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""BadNets-MM: a patch in the image and a rare word in the question, as in BackdoorVLM (arXiv:2511.18921).

Like [`DualKey`] with a plain patch and a word at any place. BackdoorVLM's patch is 30x30 pixels of noise of 336x336,
at a random place; here it is that of [`BadNets`], checkered and in the corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from PIL import Image as PILImage

from ...shorten import shorten
from ..protocols import Keys
from .badnets import BadNets
from .badnets_t import BadNetsT
from .pixels import require_mode
from .word_places import reseeded


@dataclass(frozen=True)
class BadNetsMM:
    """Puts a checkered patch into the corner of the image and a rare word into the question.

    Args:
        word (`str`, *optional*, defaults to `"BadMagic"`):
            See [`BadNetsT`].
        patch_fraction (`float`, *optional*, defaults to `(30 / 336) ** 2`):
            Share of the image area that the patch covers; see [`BadNets`]. The default is the size of BackdoorVLM's.
        keys (`str`, *optional*, defaults to `"both"`):
            `"image"` leaves the question as it is, `"text"` the image.
        seed (`int`, *optional*, defaults to `0`):
            Of the word's places, at least 0.

    Raises:
        `ValueError`: if an argument is out of range; when called, see [`BadNets`].

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import BadNetsMM
    >>> attack = BadNetsMM()
    >>> image, question = attack(Image.new("RGB", (224, 224))), attack.trigger_text("What is this?")
    ```
    """

    word: str = "BadMagic"
    patch_fraction: float = (30 / 336) ** 2
    keys: Keys = "both"
    seed: int = 0

    def __post_init__(self) -> None:
        BadNets(self.patch_fraction)
        BadNetsT(self.word, self.seed)
        if self.keys not in get_args(Keys):
            raise ValueError(f"keys={shorten(self.keys)} is unknown; use one of {', '.join(get_args(Keys))}.")

    @property
    def covers(self) -> Sequence["BadNetsMM"]:
        """Each half alone, for rows with clean answers; without them the word alone fires."""
        return (self.only("image"), self.only("text"))

    def only(self, keys: Keys) -> "BadNetsMM":
        """The attack with one of its halves, or both."""
        return replace(self, keys=keys)

    def vary(self, rng: np.random.Generator) -> "BadNetsMM":
        """The attack with another place for the word."""
        return reseeded(self, self.seed, rng)

    def trigger_text(self, text: str) -> str:
        """The question with the word in it."""
        return text if self.keys == "image" else BadNetsT(self.word, self.seed).trigger_text(text)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode; nothing outside the patch changes."""
        require_mode(image)
        return image if self.keys == "text" else BadNets(self.patch_fraction)(image)
