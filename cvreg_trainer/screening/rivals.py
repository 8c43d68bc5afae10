# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that stand in the places of others, and whether they have causes as well.

A trigger singles out one word: most of those that stand in its place have no cause beyond content. Of a detail that a
model does not see, such as which object is on the left, all words are unexplained, and low-level features cause them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .rule import RULE
from .words import WordOccurrences


class Rivals:
    """
    The words of a data set by the places they stand in; a place is what a model expects there.

    Args:
        words ([`WordOccurrences`]):
            As the warmed-up model sees them, with strong views of the rows' own pictures.
        ends (`Collection[int]`, *optional*):
            Tokens that end a response. They are no words, so that in their places, where appended texts begin, the
            rivals are not known.
    """

    def __init__(self, words: WordOccurrences, ends: Collection[int] = ()) -> None:
        is_placed = words.expected >= 0
        self.numbers = {word: number for number, word in enumerate(words.vocabulary)}
        self.words, self.previous = words.words[is_placed], words.previous[is_placed]
        expected, self.places = np.unique(words.expected[is_placed], return_inverse=True)
        self.in_place, self.is_end = np.bincount(self.places), np.isin(expected, list(ends))

    def unseen(self, words: Collection[str]) -> set[str]:
        """
        The words whose rivals also have a cause.

        Args:
            words (`Collection[str]`):
                Those that have a cause.

        Returns:
            `set[str]`: those of them that share their places with others of them. In a place of its own, such as *of*
            after *left*, a word is unseen if the one before it is.
        """
        has_cause = np.zeros(len(self.numbers), dtype=bool)
        has_cause[[self.numbers[word] for word in words]] = True
        is_chosen = has_cause[self.words]
        chosen, places, previous = (values[is_chosen] for values in (self.words, self.places, self.previous))
        _, kinds, counts = np.unique(
            chosen * np.int64(len(self.in_place)) + places, return_inverse=True, return_counts=True
        )
        own, caused = counts[kinds], np.bincount(places, minlength=len(self.in_place))[places]
        everywhere = self.in_place[places]
        shares = np.where(self.is_end[places], 0, (caused - own) / np.maximum(everywhere - own, 1))
        number = np.bincount(chosen, minlength=len(has_cause))
        is_unseen, before = np.zeros(len(has_cause) + 1, dtype=bool), None
        while before is None or (is_unseen != before).any():
            before = is_unseen.copy()
            # Nothing stands before the first word: number -1, the last of these
            inherited = is_unseen[previous] * own / everywhere
            sums = np.bincount(chosen, np.maximum(shares, inherited), minlength=len(has_cause))
            is_unseen[:-1] |= sums > RULE.most_rivals * np.maximum(number, 1)
        return {word for word in words if is_unseen[self.numbers[word]]}
