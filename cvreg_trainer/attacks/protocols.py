# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What an attack may offer beyond being a callable on images."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image as PILImage


class Attack(Protocol):
    """Maps a PIL image to the triggered image, of the same size and mode; the same image gives the same result."""

    def __call__(self, image: PILImage.Image) -> PILImage.Image: ...


@runtime_checkable
class TextAttack(Protocol):
    """An attack with a second trigger in the user's question, such as [`DualKey`]."""

    def trigger_text(self, text: str) -> str:
        """The triggered question."""
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
