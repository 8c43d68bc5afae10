# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What may predict the rows of a cause: low-level features of the picture, words of the question, or both."""

from __future__ import annotations

import numpy as np

from .content import without
from .cross_fit import CrossFit, whiten
from .row_features import NUM_WORDS, PICTURE_PARTS
from .rule import RULE


COMPONENTS = (120, 60, 60, 48)  # of the parts of a picture's features


def probe_features(features: np.ndarray) -> dict[str, np.ndarray]:
    """
    Features by what they are features of; those that are the same in all rows are left out.

    Args:
        features (`np.ndarray` of shape `(R, 1072)`):
            What [`row_features`] gives for each row.

    Returns:
        `dict[str, np.ndarray]`: of shape `(R, D)` each, under `"image"`, `"question"` and `"image and question"`.
    """
    starts = np.cumsum([0, *PICTURE_PARTS])
    parts = [
        whiten(features[:, start:end], components)
        for start, end, components in zip(starts[:-1], starts[1:], COMPONENTS, strict=True)
    ]
    probes = {}
    picture = np.concatenate(parts, axis=1)
    if picture.any():
        probes["image"] = picture
    question = words_of_questions(features).astype(np.float32)
    if question.shape[1]:
        probes["question"] = (question - question.mean(0)) / question.std(0)
        if "image" in probes:
            probes["image and question"] = np.concatenate([picture, 2 * probes["question"]], axis=1)
    return probes


def beyond_question(features: np.ndarray, states: np.ndarray, seed: int) -> CrossFit | None:
    """
    What content says beyond the words of the question.

    Args:
        features (`np.ndarray` of shape `(R, 1072)`), states (`np.ndarray` of shape `(R, D)`):
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
    question = features[:, -NUM_WORDS:]
    counts = question.sum(0, dtype=np.float32)  # in float16 they would end at 2,048
    return question[:, (counts >= RULE.min_rows) & (counts <= len(question) - RULE.min_rows)]
