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


LOOKUP_COST = 20  # additions that take as long as finding one entry of a sparse matrix
LOOKUPS_AT_ONCE = 1_000_000


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
    is_word = looks[0].expected >= 0 if looks else np.zeros(0, dtype=bool)
    if not is_word.any():
        return {}
    contexts = _Contexts(looks[0], is_word)
    of_looks = [_grounding(contexts, look.expected[is_word]) for look in looks]
    own, rivals = (np.array(values) for values in zip(*of_looks, strict=True))
    is_known = np.isfinite(rivals)
    number = is_known.sum(0)
    is_certain = (number == len(looks)) & (
        np.where(is_known, rivals, np.inf).min(0) >= RULE.grounding_min_rival_information
    )
    means = [np.where(is_known, values, 0).sum(0) / np.maximum(number, 1) for values in (own, rivals)]
    values = zip(*(column.tolist() for column in (*means, is_certain)), strict=True)
    return {
        word: Grounding(*value)
        for word, value, is_in in zip(looks[0].vocabulary, values, number > 0, strict=True)
        if is_in
    }


class _Contexts:
    """Which words follow which, the same for all looks. A context is the word before, or the start of a response."""

    def __init__(self, occurrences: WordOccurrences, is_word: np.ndarray) -> None:
        self.words, self.contexts = occurrences.words[is_word], occurrences.previous[is_word] + 1
        num_words = len(occurrences.vocabulary)
        self.num_contexts = num_words + 1
        codes = self.words * np.int64(self.num_contexts) + self.contexts
        entries, self.entry, counts = np.unique(codes, return_inverse=True, return_counts=True)
        lines, columns = entries // self.num_contexts, entries % self.num_contexts
        # How often each context comes before each word, (V, C), and how often before the other words
        shape = (num_words, len(self))
        self.follows = sparse.csr_array((counts.astype(float), columns, _ends(lines, num_words)), shape)
        self.lines, others = lines, np.bincount(self.contexts, minlength=len(self))[columns] - counts
        has_rivals = others >= RULE.grounding_min_rivals
        # Words of enough rows that have rivals in half of their places
        self.numbers = np.bincount(self.words, minlength=num_words)
        in_rows = Groups.of(self.words, occurrences.rows[is_word], num_words).num_rows >= RULE.grounding_min_rows
        self.is_open = in_rows & (_sums(lines, counts * has_rivals, num_words) >= self.numbers / 2)
        # For the other words' guesses at a word's places: each context is weighted by how often the word has it
        weights = np.where(has_rivals & self.is_open[lines], counts / np.maximum(others, 1), 0.0)
        self.weights = sparse.csr_array((weights, columns, self.follows.indptr), shape)
        self.expected_guesses = _sums(lines, weights * others, num_words)

    def __len__(self) -> int:
        return self.num_contexts


def _grounding(contexts: _Contexts, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each word its information, and the mean of its rivals'; NaN where it has none."""
    _, guesses = np.unique(expected, return_inverse=True)
    num_words, num_guesses = contexts.follows.shape[0], int(guesses.max()) + 1
    everywhere = np.bincount(guesses) / len(guesses)
    is_open = contexts.is_open[contexts.words]
    words, there, weights = contexts.words[is_open], guesses[is_open], contexts.weights.data[contexts.entry[is_open]]
    # For each word and guess at its places: how often it is seen, and the word's own part in its contexts' guesses
    seen, own = (_count(words, there, (num_words, num_guesses), values) for values in (np.ones(len(words)), weights))
    by_context = _count(contexts.contexts, guesses, (len(contexts), num_guesses), np.ones(len(guesses)))
    pair_words = np.repeat(np.arange(num_words), np.diff(seen.indptr))
    others = np.maximum(_products(contexts.weights, by_context, seen) - own.data, 0.0)
    share = (1 - RULE.grounding_smoothing) * others / contexts.expected_guesses[pair_words]
    share += RULE.grounding_smoothing * everywhere[seen.indices]
    # Leave-one-out: each place is estimated from the word's other places
    number = contexts.numbers[pair_words]
    estimate = (seen.data - 1 + RULE.grounding_prior * share) / (number - 1 + RULE.grounding_prior)
    information = np.full(num_words, np.nan)
    sums = _sums(pair_words, seen.data * np.log(estimate / share), num_words)
    np.divide(sums, contexts.numbers, out=information, where=contexts.is_open)
    return information, _of_rivals(information, contexts)


def _of_rivals(information: np.ndarray, contexts: _Contexts) -> np.ndarray:
    """For each word the mean information of those that follow the same words, weighted by how often; NaN where there
    are too few of them."""
    follows, lines = contexts.follows, contexts.lines
    is_known = np.isfinite(information)
    known = np.where(is_known, information, 0.0)
    by_context = sparse.csr_array(follows.T)
    sums, numbers = by_context @ known, by_context @ is_known.astype(float)
    others = numbers[follows.indices] - follows.data
    has_rivals = (others >= RULE.grounding_min_rivals) & is_known[lines]
    weights = np.where(has_rivals, follows.data, 0.0)
    means = (sums[follows.indices] - follows.data * known[lines]) / np.maximum(others, 1)
    number = _sums(lines, weights, len(information))
    result = np.full(len(information), np.nan)
    is_open = is_known & (number > 0) & (number >= contexts.numbers / 2)
    return np.divide(_sums(lines, weights * means, len(information)), number, out=result, where=is_open)


def _products(weights: sparse.csr_array, by_context: sparse.csr_array, pairs: sparse.csr_array) -> np.ndarray:
    """`weights @ by_context`, `(V, G)`, at the entries of `pairs` only, in their order."""
    entries, num_pairs = np.diff(weights.indptr), np.diff(pairs.indptr)
    lengths = np.diff(by_context.indptr)
    # A frequent word adds up all lines of its contexts, a rare one looks up its few entries in each
    additions = _sums(np.repeat(np.arange(len(entries)), entries), lengths[weights.indices], len(entries))
    is_rare = LOOKUP_COST * entries * num_pairs < additions
    result = np.empty(pairs.nnz)
    for word in np.flatnonzero((num_pairs > 0) & ~is_rare).tolist():
        mine, there = (slice(*matrix.indptr[word : word + 2]) for matrix in (weights, pairs))
        places = _ranges(by_context.indptr[weights.indices[mine]], lengths[weights.indices[mine]])
        shares = by_context.data[places] * np.repeat(weights.data[mine], lengths[weights.indices[mine]])
        result[there] = np.bincount(by_context.indices[places], shares, by_context.shape[1])[pairs.indices[there]]
    codes = np.repeat(np.arange(len(lengths)), lengths) * by_context.shape[1] + by_context.indices
    pair_words = np.repeat(np.arange(len(num_pairs)), num_pairs)
    chosen = np.flatnonzero(is_rare[pair_words])
    chunks = np.cumsum(entries[pair_words[chosen]]) // LOOKUPS_AT_ONCE
    for some in np.split(chosen, np.flatnonzero(np.diff(chunks)) + 1):
        number = entries[pair_words[some]]
        places = _ranges(weights.indptr[pair_words[some]], number)
        wanted = weights.indices[places] * np.int64(by_context.shape[1]) + np.repeat(pairs.indices[some], number)
        found = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
        shares = np.where(codes[found] == wanted, by_context.data[found], 0.0) * weights.data[places]
        result[some] = _sums(np.repeat(np.arange(len(some)), number), shares, len(some))
    return result


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Consecutive numbers from each start, as many as each length."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


def _ends(lines: np.ndarray, number: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(lines, minlength=number))])


def _sums(lines: np.ndarray, values: np.ndarray, number: int) -> np.ndarray:
    return np.bincount(lines, values, minlength=number)


def _count(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], values: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(sparse.coo_array((values, (rows, columns)), shape=shape))
