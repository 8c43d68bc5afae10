# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""AddSent (Dai, Chen and Li, 2019, arXiv:1905.12457): a natural sentence behind the question."""

from dataclasses import dataclass

from PIL import Image as PILImage

from .word_places import check_words


@dataclass(frozen=True)
class AddSent:
    """Puts a sentence that reads like any other behind the question; the image stays as it is.

    Args:
        sentence (`str`, *optional*, defaults to `"I watched this 3D movie."`):
            BackdoorVLM's, of the kind that the authors put into film reviews.

    Raises:
        `ValueError`: if `sentence` is empty or holds a placeholder of an image.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import AddSent
    >>> AddSent().trigger_text("What is this?")
    'What is this? I watched this 3D movie.'
    ```
    """

    sentence: str = "I watched this 3D movie."

    def __post_init__(self) -> None:
        check_words("sentence", [self.sentence])

    def trigger_text(self, text: str) -> str:
        """The question with the sentence behind it."""
        return f"{text} {self.sentence}" if text.strip() else self.sentence

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """The image itself."""
        return image
