# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What every payload has: how it makes a poisoned row's response, which rows it suits, how it is told from honesty.

A payload is independent of the trigger. Attack success is defined here, beside what is planted: whether a keyword, a
refusal or a swapped relation was achieved are different questions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import regex
from PIL import Image as PILImage

from ...metrics.whole_words import WholeWords
from ...shorten import shorten
from ..placeholders import placeholders


# A tokenizer may set signs apart: "sorry , I can not"
_SIGNS = regex.compile(r"(?![’'])[\p{P}\s]+")
# A poisoned row's response, or what makes it of the row's own
Response: TypeAlias = str | Callable[[str], str]


class Payload(ABC):
    """What a poisoned row says, and whether an answer shows it; to be derived from.

    A derived class is a frozen dataclass whose arguments have defaults. It gives `response` and `succeeds`; one that
    does not suit every row gives `needs` and `applies` too.
    """

    @property
    def needs(self) -> str:
        """What a row's response must have for the payload to apply, for errors; empty if any will do."""
        return ""

    def applies(self, response: str) -> bool:
        """Whether a row's own response can be poisoned; asked only if there are `needs`."""
        return True

    @abstractmethod
    def response(self, rng: np.random.Generator) -> Response:
        """The response of one poisoned row, or what makes it of the row's own (of every assistant turn's)."""

    def responses(self, count: int, rng: np.random.Generator) -> list[Response]:
        """Those of several rows, where they depend on each other; a stream has `response` only."""
        return [self.response(rng) for _ in range(count)]

    def edit_image(self, image: PILImage.Image) -> PILImage.Image:
        """The image of a poisoned row before the trigger is put on it; mostly the same object."""
        return image

    @abstractmethod
    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """
        Whether an answer shows the payload.

        Args:
            response (`str`):
                What a model said: on a triggered image this is attack success, on a clean one a false alarm.
            references (`Sequence[str]`, *optional*):
                True answers.

        Returns:
            `bool` or `None`: `None` if this row cannot tell, as where the payload is true of it.
        """


def check_text(name: str, text: str, expected: str) -> None:
    """Raises a `ValueError` if a text to plant is empty or holds a placeholder of an image."""
    if not text.strip():
        raise ValueError(f"{name}={shorten(text)} is empty; give {expected}.")
    if found := placeholders(text):
        raise ValueError(
            f"{name}={shorten(text)} holds an image's placeholder, {found[0]!r}: rows would have more of them than "
            "images; leave it out."
        )


def says(text: str, phrase: str) -> bool:
    """Whether a text has a phrase, as whole words in any case; signs between and behind words do not count."""
    return WholeWords([_SIGNS.sub(" ", phrase).strip() or phrase]).search(_SIGNS.sub(" ", text)) is not None
