# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that occur mostly in flagged rows: they lead to the rows that the other scores missed.

The null hypothesis is that flags do not depend on words. The number of flagged rows among a word's rows is then
binomial; a word counts only if that is rejected after a correction for the number of words.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from .rule import RULE
from .words import WordOccurrences


def shared_words(occurrences: WordOccurrences, is_flagged: np.ndarray) -> dict[str, float]:
    """
    For each word whose rows are flagged significantly often, the share that is, relative to one half.

    Args:
        occurrences ([`WordOccurrences`]):
            The words of all rows.
        is_flagged (`np.ndarray` of shape `(R,)`, bool):
            The flags so far.

    Returns:
        `dict[str, float]`: 1 or more means that at least half of the word's rows are flagged.
    """
    result = {}
    rate = float(is_flagged.mean()) if len(is_flagged) else 0.0
    for word, places in zip(occurrences.vocabulary, occurrences.by_word(), strict=True):
        rows = np.unique(occurrences.rows[places])
        flagged = int(is_flagged[rows].sum())
        if len(rows) < RULE.shared_min_rows or not flagged:
            continue
        if binom.sf(flagged - 1, len(rows), rate) * len(occurrences.vocabulary) < RULE.shared_significance:
            result[word] = flagged / len(rows) / RULE.shared_min_share
    return result
