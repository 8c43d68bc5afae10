# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that stay unexplained: the sign of a keyword that replaces a true word.

Honest words that are new to the model are learnt from what the images show, so after a short warm-up some of their
occurrences are expected. A keyword that depends on a trigger is not expected anywhere as long as the trigger has not
been learnt, which strong views put off. Hence the statistic: the surprise beyond the model's own uncertainty that nine
in ten occurrences of a word exceed, in the base model and after the warm-up. It needs no poison rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .grounding import Grounding
from .rule import RULE
from .words import WordOccurrences


def word_surprise(occurrences: WordOccurrences) -> dict[str, float]:
    """
    The surprise that most occurrences of a word exceed.

    Args:
        occurrences ([`WordOccurrences`]):
            Words with a model's surprise at them.

    Returns:
        `dict[str, float]`: the 10 % quantile of the surprise of each word's occurrences, in nats, for words in 5 rows
        or more.
    """
    groups = occurrences.groups
    order = np.lexsort((occurrences.surprise, occurrences.words))
    words = np.flatnonzero(groups.num_rows >= RULE.word_min_rows)
    # As in `np.quantile`, for all words at once: interpolated between the two nearest occurrences
    place = RULE.word_quantile * (np.diff(groups.starts)[words] - 1)
    lower = np.floor(place).astype(np.int64)
    low, high = (
        occurrences.surprise[order[groups.starts[words] + one]] for one in (lower, np.ceil(place).astype(np.int64))
    )
    values = low + (place - lower) * (high - low)
    return {occurrences.vocabulary[word]: value for word, value in zip(words.tolist(), values.tolist(), strict=True)}


def unexplained_words(
    base: WordOccurrences, warm: WordOccurrences, grounded: Mapping[str, Grounding], num_rows: int
) -> dict[str, float]:
    """
    The statistic of every word, relative to its thresholds: 1 or more means unexplained.

    Args:
        base, warm ([`WordOccurrences`]):
            The words under the model before its first step and after its warm-up. A word must be unexplained in both.
        grounded (`Mapping[str, Grounding]`):
            What [`grounding`] gives. Words that carry information about the image will be learnt, and get 0.
        num_rows (`int`):
            Number of rows in all; words in more than 10 % of them are left out.
    """
    of_base = word_surprise(base)
    result = {}
    rows_of = dict(zip(warm.vocabulary, warm.groups.num_rows.tolist(), strict=True))
    for word, surprise in word_surprise(warm).items():
        if rows_of[word] > RULE.word_max_share * num_rows:
            continue
        is_informative = word in grounded and grounded[word].is_informative
        result[word] = 0.0 if is_informative else min(of_base[word] / RULE.word_new, surprise / RULE.word_unexplained)
    return result
