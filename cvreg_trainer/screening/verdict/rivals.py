# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Words that stand in the places of others, and whether they have causes as well.

A trigger singles out one word: most others that stand in its place have no cause beyond content. For a detail that a
model does not see, such as which object is on the left, all words are unexplained, and low-level features cause them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from scipy import sparse

from .rule import RULE
from .words import WordOccurrences


class Rivals:
    """
    The words of a data set by the places they stand in; a place is identified by the token that a model expects there.

    Args:
        words ([`WordOccurrences`]):
            As the warmed-up model sees them, with strong views of the rows' own pictures.
        ends (`Collection[int]`, *optional*):
            Tokens that end a response. They are not words, so in the places where they are expected, as where an
            appended text begins, the rivals are unknown.
    """

    def __init__(self, words: WordOccurrences, ends: Collection[int] = ()) -> None:
        is_placed = words.expected >= 0
        self.numbers = {word: number for number, word in enumerate(words.vocabulary)}
        self.words, self.previous = words.words[is_placed], words.previous[is_placed]
        expected, self.places = np.unique(words.expected[is_placed], return_inverse=True)
        self.in_place, self.is_end = np.bincount(self.places), np.isin(expected, list(ends))

    def unseen(self, words: Sequence[str], is_rival: np.ndarray | None = None) -> set[str]:
        """
        The words whose rivals also have a cause.

        Args:
            words (`Sequence[str]`):
                Those that have a cause.
            is_rival (`np.ndarray` of shape `(K, K)`, bool, *optional*):
                Whether the word of the column counts as a rival of the word of the line; by default all others do. A
                word with a much weaker cause should not, nor should another word of the same payload.

        Returns:
            `set[str]`: those that share their places with others of them. In a place that it does not share, such as
            *of* after *left*, a word is unseen if the word before it is.
        """
        lines = np.full(len(self.numbers), -1)
        lines[[self.numbers[word] for word in words]] = np.arange(len(words))
        is_chosen = lines[self.words] >= 0
        chosen, places, previous = (values[is_chosen] for values in (self.words, self.places, self.previous))
        counts = sparse.csr_array(
            (np.ones(len(chosen)), (lines[chosen], places)), shape=(len(words), len(self.in_place))
        )
        is_other = ~np.eye(len(words), dtype=bool)
        of_rivals = sparse.csr_array((is_other if is_rival is None else is_rival & is_other).astype(float)) @ counts
        own, rivals = (values[lines[chosen], places] for values in (counts, of_rivals))
        everywhere = self.in_place[places]
        shares = np.where(self.is_end[places], 0, rivals / np.maximum(everywhere - own, 1))
        number = np.bincount(chosen, minlength=len(self.numbers))
        is_unseen, before = np.zeros(len(self.numbers) + 1, dtype=bool), None
        while before is None or (is_unseen != before).any():
            before = is_unseen.copy()
            # A first word has none before it: its -1 is the last entry, which stays False
            inherited = is_unseen[previous] * own / everywhere
            sums = np.bincount(chosen, np.maximum(shares, inherited), minlength=len(self.numbers))
            is_unseen[:-1] |= sums > RULE.most_rivals * np.maximum(number, 1)
        return {word for word in words if is_unseen[self.numbers[word]]}
