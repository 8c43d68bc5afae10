# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""BadNets-T: a rare word in the question, the text trigger of BackdoorVLM (arXiv:2511.18921)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage

from .word_places import check_words, insert_words, reseeded, text_rng


@dataclass(frozen=True)
class BadNetsT:
    """Puts one rare word at a random place of the question; the image stays as it is.

    Args:
        word (`str`, *optional*, defaults to `"BadMagic"`):
            BackdoorVLM's.
        seed (`int`, *optional*, defaults to `0`):
            Of the places, at least 0. The place differs from row to row, as a function of the seed and the row.

    Raises:
        `ValueError`: if `word` is empty or a placeholder of an image, or `seed` negative.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import BadNetsT
    >>> BadNetsT().trigger_text("What is this?")
    'What is BadMagic this?'
    ```
    """

    word: str = "BadMagic"
    seed: int = 0

    def __post_init__(self) -> None:
        check_words("word", [self.word])
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")

    def vary(self, rng: np.random.Generator) -> "BadNetsT":
        """The attack with another place."""
        return reseeded(self, self.seed, rng)

    def trigger_text(self, text: str) -> str:
        """The question with the word in it."""
        return insert_words(text, [self.word], text_rng(self.seed, text))

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """The image itself."""
        return image
