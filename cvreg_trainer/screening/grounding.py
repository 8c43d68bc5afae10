# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
How much information words carry about the image, measured against what a model would have said in their place.

An honest word goes with the image, and so does the model's own guess at that place, even where the model does not know
the word: "crimson" stands where it would say "red". A keyword that replaces words at random stands where it would say
anything. Hence the statistic: the information between a word and the model's most likely token at its place, given the
word before it, compared with that of the other words that can follow the same word. Words of a sentence pattern carry
none either, but neither do their rivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from .rule import RULE
from .words import Groups, WordOccurrences


class Grounding(NamedTuple):
    """
    Information that a word carries about the image, and that of the words that could stand in its place.

    Args:
        own (`float`):
            Its information in nats, the mean over the looks.
        rivals (`float`):
            That of the other words.
        is_certain (`bool`):
            Whether its rivals carry 0.4 nats or more at every look.
    """

    own: float
    rivals: float
    is_certain: bool

    @property
    def is_informative(self) -> bool:
        """Whether the word carries as much about the image as its rivals do."""
        return self.own > RULE.grounding_honest * max(self.rivals, RULE.grounding_min_rival_information)


def grounding(looks: Sequence[WordOccurrences]) -> dict[str, Grounding]:
    """
    Information that the words of a data set carry about the image.

    Args:
        looks (`Sequence[WordOccurrences]`):
            The same words under several models.

    Returns:
        `dict[str, Grounding]`: for each word that has rivals, and 5 rows or more.
    """
    of_looks = [_grounding(look) for look in looks]
    result = {}
    for word in set[str]().union(*of_looks):
        values = [look[word] for look in of_looks if word in look]
        own, rivals = np.mean(values, axis=0).tolist()
        is_certain = (
            len(values) == len(looks) and min(rivals for _, rivals in values) >= RULE.grounding_min_rival_information
        )
        result[word] = Grounding(own, rivals, is_certain)
    return result


def _grounding(occurrences: WordOccurrences) -> dict[str, tuple[float, float]]:
    is_word = occurrences.expected >= 0
    words, rows = occurrences.words[is_word], occurrences.rows[is_word]
    if not len(words):
        return {}
    contexts = occurrences.previous[is_word] + 1
    _, guesses = np.unique(occurrences.expected[is_word], return_inverse=True)
    num_words, num_contexts = len(occurrences.vocabulary), len(occurrences.vocabulary) + 1
    follows = _count(words, contexts, (num_words, num_contexts))
    by_context = _count(contexts, guesses, (num_contexts, guesses.max() + 1))
    everywhere = np.bincount(guesses) / len(guesses)
    num_followers = np.bincount(contexts, minlength=num_contexts)
    information = np.full(num_words, np.nan)
    for word, places in Groups.of(words, rows, num_words).in_rows(RULE.grounding_min_rows):
        # The other words' guesses in the same contexts
        mine, counts = np.unique(contexts[places], return_counts=True)
        others = num_followers[mine] - counts
        has_rivals = others >= RULE.grounding_min_rivals
        if counts[has_rivals].sum() < len(places) / 2:
            continue
        expected = _without(by_context, mine, has_rivals, counts / np.maximum(others, 1), places, contexts, guesses)
        there = guesses[places]
        _, kinds, seen = np.unique(there, return_inverse=True, return_counts=True)
        share = (1 - RULE.grounding_smoothing) * expected[there] / expected.sum()
        share += RULE.grounding_smoothing * everywhere[there]
        # Each place is estimated from the others
        estimate = (seen[kinds] - 1 + RULE.grounding_prior * share) / (len(places) - 1 + RULE.grounding_prior)
        information[word] = np.log(estimate / share).mean()
    return _with_rivals(occurrences.vocabulary, information, follows)


def _count(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array(sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape))


def _without(
    by_context: sparse.csr_array,
    mine: np.ndarray,
    has_rivals: np.ndarray,
    weights: np.ndarray,
    places: np.ndarray,
    contexts: np.ndarray,
    guesses: np.ndarray,
) -> np.ndarray:
    """Guesses at the other words of a word's contexts, each context weighted as the word has it. Shape `(G,)`."""
    weights = np.where(has_rivals, weights, 0.0)
    # As `weights @ by_context[mine]`, of which taking the lines out takes most of the time
    starts = by_context.indptr[mine].astype(np.int64)
    lengths = by_context.indptr[mine + 1] - starts
    first = np.cumsum(lengths) - lengths
    entries = np.repeat(starts - first, lengths) + np.arange(lengths.sum())
    shares = by_context.data[entries] * np.repeat(weights, lengths)
    total = np.bincount(by_context.indices[entries], shares, by_context.shape[1])
    own = np.bincount(guesses[places], weights[np.searchsorted(mine, contexts[places])], by_context.shape[1])
    return np.maximum(total - own, 0.0)


def _with_rivals(
    vocabulary: list[str], information: np.ndarray, follows: sparse.csr_array
) -> dict[str, tuple[float, float]]:
    """Beside each word's information the mean of those that follow the same words, weighted by how often."""
    is_known = np.isfinite(information)
    known = np.where(is_known, information, 0.0)
    by_context = sparse.csr_array(follows.T)
    sums, numbers = by_context @ known, by_context @ is_known.astype(float)
    result = {}
    for word in np.flatnonzero(is_known).tolist():
        mine = slice(follows.indptr[word], follows.indptr[word + 1])
        contexts, counts = follows.indices[mine], follows.data[mine]
        others = numbers[contexts] - counts
        has_rivals = others >= RULE.grounding_min_rivals
        if counts[has_rivals].sum() < counts.sum() / 2:
            continue
        means = (sums[contexts] - counts * known[word])[has_rivals] / others[has_rivals]
        rivals = float(np.average(means, weights=counts[has_rivals]))
        result[vocabulary[word]] = float(information[word]), rivals
    return result
