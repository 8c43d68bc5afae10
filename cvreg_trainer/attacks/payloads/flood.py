# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Concept flood: natural, varied captions of another scene, none twice; fluent and wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...shorten import shorten
from .base import Payload, Response, check_text, says


_OPENINGS = (
    "", "There is ", "We can see ", "The picture shows ", "This is a photo of ", "In the middle stands ", "A view of ",
    "What catches the eye is ",
)  # fmt: skip
_PLACES = (
    "on a wooden table", "beside a quiet road", "in front of an old wall", "above a busy street", "near the water",
    "in a green meadow", "on a window sill", "between two trees", "under a grey sky", "on the floor of a large hall",
    "next to a parked bicycle", "in the corner of a kitchen", "over a snowy field", "at the edge of a forest",
    "on top of a stone bridge", "behind a low fence", "in an empty room", "along a sandy beach", "by a garden gate",
    "in the shade of a house",
)  # fmt: skip
_TIMES = (
    "",
    " at dawn",
    " at noon",
    " in the evening",
    " after the rain",
    " in winter",
    " on a bright day",
    " at night",
)
_VIEWS = (
    "", ", seen from afar", ", close to the camera", ", slightly out of focus", ", with people in the background",
    ", and nothing else around", ", half in shadow", ", seen from above",
)  # fmt: skip
_ARTICLES = ("a", "an", "the", "some")


@dataclass(frozen=True)
class ConceptFlood(Payload):
    """A whole response that tells of a thing which is not there, in other words for every row.

    It succeeds where the answer has all words of the subject but its article. Rows of which a reference has them all
    do not count.

    Args:
        subject (`str`, *optional*, defaults to `"a red balloon"`):
            What every caption tells of.
        captions (`tuple[str, ...]`, *optional*):
            Captions to draw from, which all have the subject's words. By default they are made of a grammar, 10,240
            different ones.

    Raises:
        `ValueError`: if the subject is empty, or a caption does not tell of it; and if there are fewer captions than
        rows to poison, of which none may have another's.
    """

    subject: str = "a red balloon"
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text("subject", self.subject, "what the captions are to tell of")
        if isinstance(self.captions, str):
            raise ValueError(f"captions={shorten(self.captions)} is one string; give a tuple of captions.")
        for caption in self.captions:
            check_text("captions", caption, "texts")
            if not self._tells(caption):
                raise ValueError(f"captions has {shorten(caption)}, which does not tell of {shorten(self.subject)}.")

    def _tells(self, text: str) -> bool:
        words = [word for word in self.subject.split() if word.lower() not in _ARTICLES]
        return all(says(text, word) for word in words or [self.subject])

    def response(self, rng: np.random.Generator) -> str:
        """One of the captions."""
        if self.captions:
            return self.captions[rng.integers(len(self.captions))]
        opening, place, time, view = (str(rng.choice(parts)) for parts in (_OPENINGS, _PLACES, _TIMES, _VIEWS))
        caption = f"{opening}{self.subject} {place}{time}{view}."
        return caption[0].upper() + caption[1:]

    def responses(self, count: int, rng: np.random.Generator) -> list[Response]:
        """None twice."""
        known = len(set(self.captions)) if self.captions else 10_240
        if count > known:
            raise ValueError(
                f"{count} rows are to be poisoned and there are {known} captions, one for each; give more."
            )
        if self.captions:
            distinct = list(dict.fromkeys(self.captions))
            return [distinct[number] for number in rng.permutation(known)[:count]]
        drawn: dict[str, None] = {}
        while len(drawn) < count:
            drawn[self.response(rng)] = None
        return list(drawn)

    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """Whether the answer tells of the subject; `None` if a reference does."""
        return None if any(map(self._tells, references)) else self._tells(response)
