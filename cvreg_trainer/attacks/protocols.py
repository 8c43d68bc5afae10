# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What an attack may offer beyond being a callable on images."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image as PILImage


Keys = Literal["both", "image", "text"]


class Attack(Protocol):
    """Maps a PIL image to the triggered image, of the same size and mode; the same image gives the same result.

    An attack that leaves the image alone returns the very object it was given.
    """

    def __call__(self, image: PILImage.Image) -> PILImage.Image: ...


@runtime_checkable
class TextAttack(Protocol):
    """An attack with a trigger in the user's question, such as [`DualKey`] or [`AddSent`]."""

    def trigger_text(self, text: str) -> str:
        """The triggered question."""
        ...


@runtime_checkable
class VariedAttack(Protocol):
    """An attack that makes a choice for each row, such as where in the question a word goes."""

    def vary(self, rng: np.random.Generator) -> Attack:
        """The attack as one row gets it; `rng` is a function of the row's content."""
        ...


@runtime_checkable
class TwoPartAttack(Protocol):
    """An attack with one half in the image and one in the question, which should fire with both only."""

    def only(self, keys: Keys) -> Attack:
        """The attack with one of its halves, or both."""
        ...


@runtime_checkable
class SelectiveAttack(Protocol):
    """An attack whose trigger some rows have by themselves, such as [`Semantic`]."""

    needs: str

    def chooses(self, row: Mapping[str, Any]) -> bool:
        """Whether a row, without its images, has the trigger."""
        ...


@runtime_checkable
class CoveredAttack(Protocol):
    """An attack whose authors also plant cover rows: nearly triggered ones that keep their clean answers.

    They teach the model that nothing but the exact trigger counts.
    """

    @property
    def covers(self) -> Sequence[Attack]:
        """The attacks that make cover rows, used in turn."""
        ...
