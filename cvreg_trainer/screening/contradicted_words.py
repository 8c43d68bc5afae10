# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that the base model knows well, in places where it is sure of something else: the sign of a keyword that honest
captions have too.

Of most honest words the base model expects all occurrences but a few. One that stands in many places where it does not
belong has a share of contradicted occurrences far beyond that of the other words.
"""

from __future__ import annotations

import numpy as np

from .fence import beyond_fence
from .rule import RULE
from .words import WordOccurrences


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
    is_contradicted = base.nll > RULE.known_contradicted
    shares = {}
    for word, places in zip(base.vocabulary, base.by_word(), strict=True):
        rows = len(np.unique(base.rows[places]))
        if not RULE.known_min_rows * num_rows <= rows <= RULE.known_max_rows * num_rows:
            continue
        if np.quantile(base.nll[places], RULE.known_share) < RULE.known_nats:
            shares[word] = float(is_contradicted[places].mean())
    relative = np.array(list(shares.values())) / RULE.known_min_contradicted
    if len(shares) >= RULE.known_min_words:
        relative = np.minimum(relative, beyond_fence(np.array(list(shares.values()))))
    return dict(zip(shares, relative.tolist(), strict=True)), base.nll > RULE.known_unexpected
