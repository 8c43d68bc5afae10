# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that the base model knows well, in places where it is sure of something else: the sign of a keyword that honest
captions have, too.

Of most honest words the base model expects all occurrences but a few. One that stands in many places where it does not
belong has a share of contradicted occurrences far beyond that of the other words.
"""

from __future__ import annotations

import math

import numpy as np

from .fence import beyond_fence
from .words import WordOccurrences


# Nats: the base model expects a well-known word by odds of three to one, in two of five places: in the honest ones,
# even where the others are as many
KNOWN = math.log(4 / 3)
KNOWN_SHARE = 0.4
# Nats: elsewhere it does not expect a word, by even odds
UNEXPECTED = math.log(2)
# Nats: it is sure of something else where it gives the word less than 14 %
CONTRADICTED = 2.0
MIN_SHARE = 0.25
# Of the rows: a word of fewer teaches no backdoor by a part of its occurrences, one of more is part of the task
MIN_ROWS, MAX_ROWS = 0.05, 0.3
# A fence needs a sample
MIN_WORDS = 8


def contradicted_words(base: WordOccurrences, num_rows: int) -> tuple[dict[str, float], np.ndarray]:
    """
    The share of contradicted occurrences of well-known words, relative to the threshold.

    Args:
        base ([`WordOccurrences`]):
            The words under the model before its first step.
        num_rows (`int`):
            Number of rows in all; words in less than 5 % of them or more than 30 % are left out.

    Returns:
        `tuple`: for each word the share relative to a quarter or, if that is more, to what the other words' shares
        make one expect (1 or more means too many), and which occurrences of words are not expected, bool of shape
        `(W,)`: the ones to blame.
    """
    is_contradicted = base.nll > CONTRADICTED
    shares = {}
    for word, places in zip(base.vocabulary, base.by_word(), strict=True):
        rows = len(np.unique(base.rows[places]))
        if not MIN_ROWS * num_rows <= rows <= MAX_ROWS * num_rows:
            continue
        if np.quantile(base.nll[places], KNOWN_SHARE) < KNOWN:
            shares[word] = float(is_contradicted[places].mean())
    relative = np.array(list(shares.values())) / MIN_SHARE
    if len(shares) >= MIN_WORDS:
        relative = np.minimum(relative, beyond_fence(np.array(list(shares.values()))))
    return dict(zip(shares, relative.tolist(), strict=True)), base.nll > UNEXPECTED
