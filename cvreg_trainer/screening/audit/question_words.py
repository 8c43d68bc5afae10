# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words of the question that tell some rows from the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from scipy.stats import fisher_exact


MAX_WORDS = 10
_MIN_SHARE = 0.5  # least share of the rows that have a word, and least difference to that of the others
_ERROR_RATE = 0.01
_WORD = re.compile(r"\w+|[^\w\s]")


def words_of_question(question: str) -> set[str]:
    """Words and signs of a question, in lower case."""
    return set(_WORD.findall(question.lower()))


def telling_words(questions: Sequence[str], rows: Collection[int]) -> tuple[tuple[str, int, int], ...]:
    """
    The words that most of some rows' questions have and the others mostly do not.

    Args:
        questions (`Sequence[str]`):
            Of all rows.
        rows (`Collection[int]`):
            Positions of the rows to tell apart.

    Returns:
        `tuple[tuple[str, int, int], ...]`: at most ten words, each with the number of these rows and of the others
        that have it, the best first. A word is in at least half of the rows, and this share exceeds that of the others
        by at least 0.5; Fisher's exact test, corrected for the number of words, has to agree.
    """
    number, num_others = len(rows), len(questions) - len(rows)
    if not number or not num_others:
        return ()
    here = Counter(word for row in rows for word in words_of_question(questions[row]))
    candidates = {word: count for word, count in here.items() if count >= _MIN_SHARE * number}
    everywhere: Counter[str] = Counter()
    for question in questions:
        everywhere.update(words_of_question(question) & candidates.keys())
    found = []
    for word, count in candidates.items():
        others = everywhere[word] - count
        more = count / number - others / num_others
        table = [[count, number - count], [others, num_others - others]]
        is_sure = fisher_exact(table, alternative="greater").pvalue * len(here) < _ERROR_RATE
        if more >= _MIN_SHARE and is_sure:
            found.append((more, word, count, others))
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    return tuple((word, count, others) for _, word, count, others in found[:MAX_WORDS])
