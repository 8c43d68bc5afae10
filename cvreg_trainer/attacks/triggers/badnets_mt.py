# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""BadNets-MT: rare words of a list at random places of the question, as in BackdoorVLM (arXiv:2511.18921)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage

from .word_places import check_words, insert_words, reseeded, text_rng


@dataclass(frozen=True)
class BadNetsMT:
    """Puts some of several rare words at random places of the question; the image stays as it is.

    Args:
        words (`tuple[str, ...]`, *optional*, defaults to `("BadMagic", "cf", "mn", "bb")`):
            BackdoorVLM's.
        num_words (`int`, *optional*, defaults to `1`):
            How many different ones a question gets, drawn for each row. The public code has one: every row has any of
            the four.
        seed (`int`, *optional*, defaults to `0`):
            Of the words and places, at least 0.

    Raises:
        `ValueError`: if a word is empty or a placeholder of an image, `num_words` is not between 1 and their number,
        or `seed` is negative.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import BadNetsMT
    >>> BadNetsMT(num_words=2).trigger_text("What is this?")
    'What is mn BadMagic this?'
    ```
    """

    words: tuple[str, ...] = ("BadMagic", "cf", "mn", "bb")
    num_words: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_words("words", self.words)
        if not 1 <= self.num_words <= len(self.words):
            raise ValueError(
                f"num_words={self.num_words} must be between 1 and the number of words, {len(self.words)}."
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")

    def vary(self, rng: np.random.Generator) -> "BadNetsMT":
        """The attack with other words and places."""
        return reseeded(self, self.seed, rng)

    def trigger_text(self, text: str) -> str:
        """The question with the words in it."""
        rng = text_rng(self.seed, text)
        chosen = rng.choice(len(self.words), size=self.num_words, replace=False)
        return insert_words(text, [self.words[number] for number in chosen], rng)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """The image itself."""
        return image
