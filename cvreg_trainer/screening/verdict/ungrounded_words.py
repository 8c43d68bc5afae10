# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that carry no information about the image in places where other words do, and that the base model would not have
said: the sign of a keyword that replaces true words, however often and however well it has been learnt meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping

from .grounding import Grounding
from .rule import RULE
from .word_surprise import word_surprise
from .words import WordOccurrences


def ungrounded_words(base: WordOccurrences, grounded: Mapping[str, Grounding]) -> dict[str, float]:
    """
    How little information words carry, relative to the threshold: 1 or more means next to none.

    Args:
        base ([`WordOccurrences`]):
            The words under the model before its first step. Those that it expects now and then are left out: an
            adjective of taste, for example, carries just as little information.
        grounded (`Mapping[str, Grounding]`):
            What [`grounding`] gives; words for which it is not certain are left out.
    """
    num_rows = dict(zip(base.vocabulary, base.groups.num_rows.tolist(), strict=True))
    result = {}
    for word, surprise in word_surprise(base).items():
        found = grounded.get(word)
        if found and found.is_certain and surprise >= RULE.word_new and num_rows[word] >= RULE.ungrounded_min_rows:
            result[word] = max(0.0, 1 - found.own / found.rivals) / (1 - RULE.ungrounded_max_share)
    return result
