# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Turns the causes of a screen into findings that a person can read, with examples and the trigger.

Notable: the pictures of at most 200 rows of a cause and of 200 others are read, one at a time, and none is kept; a row
whose picture cannot be read is skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..passes.row_features import SIDE
from ..verdict.causes import Cause
from ..verdict.screen import Screen
from .cause_findings import CauseFinding, Trigger
from .moving_trigger import locate_trigger
from .question_words import telling_words
from .stored_pictures import open_picture, picture_reader
from .trigger_map import map_trigger, place_responses


logger = logging.getLogger(__name__)

MAX_PICTURED = 200  # rows on either side of a map
MAX_EXAMPLES = 50
MAX_RESPONSES = 6


def make_cause_findings(
    screen: Screen, dataset: Any, questions: Sequence[str], responses: Sequence[str], seed: int
) -> list[CauseFinding]:
    """
    Findings of a screen: the flagged ones, then the kept groups.

    Args:
        screen ([`Screen`]):
            The verdicts.
        dataset:
            The rows, in their order. Triggers are looked for where it has positions and as many rows as the screen.
        questions, responses (`Sequence[str]`):
            Of all rows.
        seed (`int`):
            Draws rows.
    """
    can_look = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    finder = None
    if can_look and len(dataset) == len(responses):
        finder = TriggerFinder(dataset, questions, np.flatnonzero(~screen.is_flagged), seed)
    findings = []
    for cause in screen.causes:
        trigger = None if finder is None else finder.find(cause.rows, cause.source)
        findings.append(_finding("poison", cause, responses, seed, trigger))
    for verdict, groups in screen.kept.items():
        findings += [_finding(verdict, cause, responses, seed) for cause in groups]
    return findings


def _finding(
    verdict: str, cause: Cause, responses: Sequence[str], seed: int, trigger: Trigger | None = None
) -> CauseFinding:
    drawn = _draw(cause.rows, seed)[:MAX_EXAMPLES]
    texts = dict.fromkeys(responses[row] for row in drawn)
    return CauseFinding(
        verdict=verdict,
        words=cause.words,
        num_rows=len(cause.rows),
        examples=tuple(drawn),
        responses=tuple(texts)[:MAX_RESPONSES],
        source=cause.source,
        strength=cause.strength,
        content=cause.content,
        explained=cause.explained,
        p_value=cause.p_value,
        trigger=trigger,
    )


class TriggerFinder:
    """
    Looks for what tells flagged rows from others.

    Args:
        dataset (`datasets.Dataset` or `Sequence[Mapping[str, Any]]`):
            All rows.
        questions (`Sequence[str]`):
            Of all rows; empty where they are not known.
        others (`np.ndarray` of shape `(M,)`, int64):
            Positions of rows that are not flagged.
        seed (`int`):
            Draws rows.
    """

    def __init__(self, dataset: Any, questions: Sequence[str], others: np.ndarray, seed: int) -> None:
        self.images_of = picture_reader(dataset)
        self.questions, self.others, self.seed = questions, others, seed
        self._responses_of_others: np.ndarray | None = None

    def find(self, rows: np.ndarray, source: str) -> Trigger | None:
        """
        The trigger of some rows.

        Args:
            rows (`np.ndarray` of shape `(M,)`, int64):
                Their positions.
            source (`str`):
                What causes their responses; see [`Cause`].

        Returns:
            [`Trigger`], or `None` if neither pictures nor questions could be looked at.
        """
        words = telling_words(self.questions, rows.tolist()) if "question" in source else ()
        found = self._compare(rows) if "image" in source else None
        if found is not None:
            # With such words, a difference all over the pictures is more likely what they show
            is_of_question = words and found.kind not in ("region", "moving")
            return replace(found, kind="question" if is_of_question else found.kind, words=words)
        if "question" in source and any(self.questions):
            return Trigger("question" if words else "unseen", words=words)
        return None

    def _compare(self, rows: np.ndarray) -> Trigger | None:
        """What the pictures of some rows show of their trigger, or `None` if too few could be read."""
        if self._responses_of_others is None:
            self._responses_of_others, _ = self._look_at(self.others)
        others, (flagged, read) = self._responses_of_others, self._look_at(rows)
        found = map_trigger(flagged, others, self.seed)
        if found is None:
            return None
        places = locate_trigger(flagged, others) if found.kind != "region" else None
        grid = tuple(tuple(round(value, 3) for value in line) for line in found.values.tolist())
        return Trigger(
            kind=found.kind if places is None else "moving",
            box=found.box,
            boxes=tuple(zip(read, places or (), strict=False))[:MAX_EXAMPLES],
            map=grid,
            num_pictures=len(flagged),
            num_others=len(others),
        )

    def _look_at(self, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Responses by place of some rows' pictures, as many as can be read among the first that are drawn, and which
        rows these are."""
        drawn = _draw(rows, self.seed)
        responses: list[np.ndarray] = []
        read: list[int] = []
        # Where many cannot be read, others are tried, but not a million of them
        for row in drawn[: 2 * MAX_PICTURED]:
            if len(responses) == MAX_PICTURED:
                break
            try:
                # As in the screening, the first picture
                pictures = [open_picture(picture, SIDE) for picture in self.images_of(row)[:1]]
            except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
                logger.debug("Row %d is not looked at for a trigger: %s", row, error)
                continue
            responses += map(place_responses, pictures)
            read += [row] * len(pictures)
        return np.array(responses), read


def _draw(rows: np.ndarray, seed: int) -> list[int]:
    """The rows in random order."""
    drawn: list[int] = np.random.Generator(np.random.PCG64(seed)).permutation(rows).tolist()
    return drawn
