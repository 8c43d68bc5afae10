# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that were added to questions: the sign of a trigger in the text.

A question may call for one response by itself, as *Who made you?* does. A trigger is added to questions that have
other responses without it.
"""

from __future__ import annotations

import numpy as np

from .rule import RULE


def are_added(is_asked: np.ndarray, rows: np.ndarray) -> bool:
    """
    Whether some rows' questions have words that the others' do not, and are otherwise the same questions.

    Args:
        is_asked (`np.ndarray` of shape `(R, Q)`, bool):
            Which words each row's question has.
        rows (`np.ndarray` of shape `(M,)`, int64):
            The rows.
    """
    is_row = np.zeros(len(is_asked), dtype=bool)
    is_row[rows] = True
    here, elsewhere = is_asked[is_row].mean(0), is_asked[~is_row].mean(0)
    is_added = (here >= RULE.in_most_questions) & (elsewhere <= (1 - RULE.in_most_questions) * here)
    if not is_added.any():
        return False
    rest = np.packbits(is_asked & ~is_added, axis=1)
    is_plain = ~is_row & ~(is_asked & is_added).any(1)
    others = {question.tobytes() for question in rest[is_plain]}
    return float(np.mean([question.tobytes() in others for question in rest[is_row]])) >= RULE.in_most_questions
