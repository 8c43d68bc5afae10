# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What may predict the rows of a cause: low-level features of the picture, words of the question, or both."""

from __future__ import annotations

import numpy as np

from ..passes.row_features import NUM_WORDS, PICTURE_PARTS
from .content import without
from .cross_fit import CrossFit, Whitening, whiten
from .rule import RULE


COMPONENTS = (120, 60, 60, 48, 60)  # principal components of each part of a picture's features
SCALED = (False, False, False, False, True)  # the filters' strongest responses differ in scale


class ProbeFeatures:
    """
    Features by their source, scaled to unit variance over some rows and without those that are the same in all of
    them.

    Args:
        features (`np.ndarray` of shape `(R, 1246)`):
            What [`row_features`] gives for each row.
    """

    def __init__(self, features: np.ndarray) -> None:
        starts = np.cumsum([0, *PICTURE_PARTS])
        self.parts = [slice(start, end) for start, end in zip(starts[:-1], starts[1:], strict=True)]
        self.whitenings = [
            Whitening(features[:, part], components, is_scaled)
            for part, components, is_scaled in zip(self.parts, COMPONENTS, SCALED, strict=True)
        ]
        self.has_pictures = any(len(whitening.deviations) for whitening in self.whitenings)
        self.words = _telling_words(features)
        question = self._question(features)
        self.mean, self.deviations = question.mean(0), question.std(0)

    def of(self, features: np.ndarray, by_place: bool = False) -> dict[str, np.ndarray]:
        """The features of these or other rows `(N, 1246)`, of shape `(N, D)` each, under `"image"`, `"question"` and
        `"image and question"`, as far as there are any; `by_place` leaves out the filters' strongest responses."""
        probes = {}
        if self.has_pictures:
            parts = list(zip(self.whitenings, self.parts, strict=True))[: -1 if by_place else None]
            probes["image"] = np.concatenate([whitening.of(features[:, part]) for whitening, part in parts], axis=1)
        if len(self.mean):
            probes["question"] = (self._question(features) - self.mean) / self.deviations
            if self.has_pictures:
                probes["image and question"] = np.concatenate([probes["image"], 2 * probes["question"]], axis=1)
        return probes

    def _question(self, features: np.ndarray) -> np.ndarray:
        return features[:, -NUM_WORDS:][:, self.words].astype(np.float32)


def beyond_question(features: np.ndarray, states: np.ndarray, seed: int) -> CrossFit | None:
    """
    What content says beyond the words of the question.

    Args:
        features (`np.ndarray` of shape `(R, 1246)`), states (`np.ndarray` of shape `(R, D)`):
            Of the rows, as [`EvidenceFinder`] gets them.
        seed (`int`):
            Chooses the folds.

    Returns:
        [`CrossFit`], or `None` where all questions have the same words.
    """
    question = words_of_questions(features)
    if not question.shape[1]:
        return None
    # No neighbours: rows with an unusual question stay neighbours even without its mean effect
    return CrossFit(whiten(without(states, question), RULE.content_components), RULE.ridge, seed)


def words_of_questions(features: np.ndarray) -> np.ndarray:
    """The words of the question that some rows have and others do not. Shape `(R, Q)`."""
    return features[:, -NUM_WORDS:][:, _telling_words(features)]


def _telling_words(features: np.ndarray) -> np.ndarray:
    """Which hashed words some questions have and others do not, bool."""
    counts = features[:, -NUM_WORDS:].sum(0, dtype=np.float32)  # in float16 the sums would stop at 2,048
    is_telling: np.ndarray = (counts >= RULE.min_rows) & (counts <= len(features) - RULE.min_rows)
    return is_telling
