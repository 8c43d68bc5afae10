# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What an audit says about groups of rows: their payload, their trigger, and a verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...shorten import shorten


VERDICTS = {
    "poison": "Looks like poison: flagged. The images do not explain these responses, and yet something else in the "
    "input gives away which rows have them.",
    "noise": "Boilerplate or noise: kept. The images do not explain it, and neither low-level features of the images "
    "nor words of the questions give away which rows have it.",
    "content": "A style, or a concept that the model does not know yet: kept. The images do not explain it so far, "
    "but what they show tells its rows about as well as low-level features do.",
    "unseen": "A detail that the model does not see: kept. Low-level features give away which rows have it, but also "
    "those of the other words that stand in its place; a trigger singles out one.",
}
KINDS = ("region", "moving", "spread", "question", "unseen")


@dataclass(frozen=True)
class Trigger:
    """
    What tells the rows of a finding from the others.

    Args:
        kind (`str`):
            `"region"` of the images; `"moving"`: one place, another in each; `"spread"`: all over them, which may also
            be what they show; `"question"`: words of the question; `"unseen"`: nothing that can be shown.
        box (`tuple[float, float, float, float]`, *optional*):
            Left, top, right and bottom edge of the region, as shares of width and height.
        map (`tuple[tuple[float, ...], ...]`, *optional*, defaults to `()`):
            How far the images differ in each of 16 x 16 cells, from top to bottom and left to right; a value above 1
            is more than any cell reaches in 99 shuffles of the rows. Empty where images are not the cause.
        words (`tuple[tuple[str, int, int], ...]`, *optional*, defaults to `()`):
            Words of the question that tell the rows apart, each with the number of the finding's rows and of all
            others that have it.
        num_pictures (`int`, *optional*, defaults to `0`), num_others (`int`, *optional*, defaults to `0`):
            Number of rows whose images were compared, of the finding and of others.
        boxes (`tuple[tuple[int, tuple[float, float, float, float]], ...]`, *optional*, defaults to `()`):
            Of a trigger that moves, the positions of some rows and the region in the image of each.
    """

    kind: str
    box: tuple[float, float, float, float] | None = None
    map: tuple[tuple[float, ...], ...] = ()
    words: tuple[tuple[str, int, int], ...] = ()
    num_pictures: int = 0
    num_others: int = 0
    boxes: tuple[tuple[int, tuple[float, float, float, float]], ...] = ()

    @property
    def place(self) -> str:
        """`str`: where the images differ, in words."""
        if self.box is not None:
            left, top, right, bottom = self.box
            name = _name_of_place((left + right) / 2, (top + bottom) / 2)
            return f"The flagged images differ most {name}, x {left:.0%} to {right:.0%}, y {top:.0%} to {bottom:.0%}."
        if self.kind == "moving":
            return "The flagged images differ in one place, another in each: a trigger that moves."
        if self.kind == "spread":
            return "The flagged images differ all over: a trigger that is blended in, or what they show."
        return "No one place of the flagged images stands out." if self.map else ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trigger:
        """The trigger that `dataclasses.asdict` turned into these values, which may have been through JSON."""
        known = _known(cls, values)
        box = None if known.get("box") is None else tuple(known["box"])
        boxes = tuple((row, tuple(edges)) for row, edges in known.get("boxes", ()))
        grid = tuple(tuple(line) for line in known.get("map", ()))
        words = tuple(map(tuple, known.get("words", ())))
        return cls(**(known | {"box": box, "boxes": boxes, "map": grid, "words": words}))


@dataclass(frozen=True)
class CauseFinding:
    """
    A group of rows, and why they are flagged or kept.

    Args:
        verdict (`str`):
            `"poison"`, flagged; or kept: `"noise"`, which nothing causes, `"content"`, which the images' content
            predicts, or `"unseen"`, whose rivals have causes as well.
        words (`tuple[str, ...]`):
            The payload: what the responses share, the best predicted first.
        num_rows (`int`):
            Number of rows.
        examples (`tuple[int, ...]`):
            Some of their positions, at most 50.
        responses (`tuple[str, ...]`):
            Some different responses of theirs.
        source (`str`):
            What predicts the rows best: `"image"`, `"question"`, or `"image and question"`.
        strength, content (`float`):
            Correlation of the rows with what the source predicts out of fold, and with what content predicts.
        explained (`float`):
            Share of the nats of the first word that the right image explains.
        p_value (`float`):
            Of the first word's prediction, adjusted for the number of words that were tested (Benjamini and Hochberg).
        trigger ([`Trigger`], *optional*):
            What tells the rows from others; `None` for kept groups, and where the rows cannot be looked up again.
    """

    verdict: str
    words: tuple[str, ...]
    num_rows: int
    examples: tuple[int, ...]
    responses: tuple[str, ...]
    source: str
    strength: float
    content: float
    explained: float
    p_value: float
    trigger: Trigger | None = None

    @property
    def is_flagged(self) -> bool:
        """`bool`: whether the rows are flagged."""
        return self.verdict == "poison"

    @property
    def summary(self) -> str:
        """`str`: the verdict in plain words."""
        return VERDICTS[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """The finding as values that can be written as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CauseFinding:
        """
        The finding that [`CauseFinding.to_dict`] turned into these values, which may have been through JSON. Fields
        that later versions add are ignored.

        Raises:
            `ValueError`: if the verdict is unknown.
        """
        known = _known(cls, values)
        if known["verdict"] not in VERDICTS:
            raise ValueError(
                f"A finding of the audit has the verdict {shorten(known['verdict'])}; this version knows "
                f"{', '.join(VERDICTS)}. Read the audit with the version that wrote it."
            )
        lists = {name: tuple(known[name]) for name in ("words", "examples", "responses")}
        trigger = None if known.get("trigger") is None else Trigger.from_dict(known["trigger"])
        return cls(**(known | lists | {"trigger": trigger}))


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _name_of_place(x: float, y: float) -> str:
    """The name of a place in the picture, by thirds."""
    across, down = ((share > 1 / 3) + (share > 2 / 3) for share in (x, y))
    if across == down == 1:
        return "in the middle"
    names = ("upper", "", "lower")[down], ("left", "", "right")[across]
    if not names[0]:
        return f"on the {names[1]}"
    return f"in the {names[0]} {names[1] or 'middle'}"
