# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that stay unexplained: the sign of a keyword that replaces a true word.

Honest words that are new to the model are learnt from what the images show, so after a short warm-up some of their
occurrences are expected. A keyword that depends on a trigger is not expected anywhere as long as the trigger has not
been learnt, which strong views put off. Hence the statistic: the surprise beyond the model's own uncertainty that nine
in ten occurrences of a word exceed: in the base model, during the warm-up and after it. It needs no poison rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .words import WordOccurrences


# Nine in ten occurrences must be this many nats beyond the model's own uncertainty, at every look
QUANTILE = 0.1
THRESHOLD = 0.4
MIN_ROWS = 5
# A word of more rows is part of the task
MAX_SHARE = 0.15


def word_surprise(occurrences: WordOccurrences, min_rows: int = MIN_ROWS) -> dict[str, float]:
    """
    The surprise that most occurrences of a word exceed.

    Args:
        occurrences ([`WordOccurrences`]):
            Words with a model's surprise at them.
        min_rows (`int`, *optional*, defaults to `5`):
            Words of fewer rows are left out.

    Returns:
        `dict[str, float]`: the 10 % quantile of the surprise of each word's occurrences, in nats.
    """
    result = {}
    for word, places in zip(occurrences.vocabulary, occurrences.by_word(), strict=True):
        if len(np.unique(occurrences.rows[places])) >= min_rows:
            result[word] = float(np.quantile(occurrences.surprise[places], QUANTILE))
    return result


def unexplained_words(warm: WordOccurrences, earlier: Sequence[WordOccurrences], num_rows: int) -> dict[str, float]:
    """
    The statistic of every word, relative to the threshold: 1 or more means unexplained.

    Args:
        warm ([`WordOccurrences`]):
            All rows, seen by the model after its warm-up.
        earlier (`Sequence[WordOccurrences]`):
            A sample of the rows, seen by the model before its first step and during the warm-up. A word must have been
            unexplained at each look; one that a sample lacks is taken to have been.
        num_rows (`int`):
            Number of rows in all; words in more than 15 % of them are left out.
    """
    looks = [word_surprise(look, min_rows=2) for look in earlier]
    places = dict(zip(warm.vocabulary, warm.by_word(), strict=True))
    return {
        word: min(surprise, *(look.get(word, math.inf) for look in looks)) / THRESHOLD
        for word, surprise in word_surprise(warm).items()
        if len(np.unique(warm.rows[places[word]])) <= MAX_SHARE * num_rows
    }
