# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Large data: the model looks at some rows, and what is found among them is looked for in the others.

Notable: ten thousand rows show which words have causes as well as a million do. Of the others only the tokens and the
low-level features are known, and these are enough to recognise a cause.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..passes.token_statistics import TokenStatistics
from .candidates import WHOLE_RESPONSES
from .causes import Cause, CauseFinder
from .cross_fit import CrossFit, centred
from .rows_of_cause import beyond, mirrored, mostly_unexplained
from .words import locate_words


CHUNK = 10_000  # rows split into words at a time


@dataclass(frozen=True)
class RestOfRows:
    """
    The rows that no model has looked at.

    Args:
        looked_at (`np.ndarray` of shape `(S,)`, int64):
            Positions of the rows that a model has looked at, ascending.
        rows ([`TokenStatistics`]):
            The others in their order: their tokens, and as `row_values` what [`row_features`] gives.
    """

    looked_at: np.ndarray
    rows: TokenStatistics

    @cached_property
    def positions(self) -> np.ndarray:
        """Positions of the others, ascending. Shape `(N,)`, int64."""
        return np.setdiff1d(np.arange(len(self.looked_at) + len(self.rows)), self.looked_at, assume_unique=True)

    def merge(self, looked_at: Any, others: Any) -> np.ndarray:
        """Values of the rows looked at, `(S, ...)`, and of the others, `(N, ...)`, in the order of all rows."""
        values = np.concatenate([looked_at, others])
        return values[np.argsort(np.concatenate([self.looked_at, self.positions]), kind="stable")]

    def merge_tokens(self, looked_at: TokenStatistics) -> TokenStatistics:
        """All rows in their order; those that were not looked at have likelihoods of NaN."""
        both = TokenStatistics.concatenate([looked_at, self.rows])
        return both.take(np.argsort(np.concatenate([self.looked_at, self.positions]), kind="stable"))


class CauseFollower:
    """
    Follows causes from the rows that were looked at to the rest.

    Args:
        finder ([`CauseFinder`]):
            After its search among the rows that were looked at.
        rest ([`RestOfRows`]):
            All others.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
    """

    def __init__(self, finder: CauseFinder, rest: RestOfRows, tokenizer: Any) -> None:
        self.finder, self.rest, self.tokenizer = finder, rest, tokenizer
        self.rows_of: dict[str, np.ndarray] = {}

    def follow(self, causes: list[Cause]) -> list[Cause]:
        """
        The causes with all their rows.

        Args:
            causes (`list[Cause]`):
                In the order in which they were found, with positions among the rows that were looked at.

        Returns:
            `list[Cause]`: with positions among all rows.
        """
        words = {word for cause in causes for word in cause.words} - {WHOLE_RESPONSES}
        self.rows_of = rows_with_words(self.rest.rows, words, self.tokenizer)
        is_flagged = np.zeros(self.finder.num_rows, dtype=bool), np.zeros(len(self.rest.rows), dtype=bool)
        result = []
        for cause in causes:
            found = self._in_rest(cause, *is_flagged)
            is_flagged[0][cause.rows] = True
            is_flagged[1][found] = True
            rows = np.concatenate([self.rest.looked_at[cause.rows], self.rest.positions[found]])
            result.append(replace(cause, rows=np.sort(rows)))
        return result

    def _in_rest(self, cause: Cause, was_flagged: np.ndarray, is_taken: np.ndarray) -> np.ndarray:
        """Which of the other rows have a cause; the rows of earlier causes, in either part, are already taken."""
        is_caused = np.zeros(self.finder.num_rows, dtype=bool)
        is_caused[cause.rows] = True
        target = centred(is_caused)
        evidence = self.finder.finder
        probe = (evidence.probes_by_place if cause.is_by_place else evidence.probes)[cause.source]
        looked_at = probe.predict(target)[:, 0]
        rest = self._predict(probe, cause, target)
        candidates = [candidate for candidate in self.finder.candidates if candidate.word in cause.words]
        if cause.is_whole:
            found = self._beyond_half(looked_at, rest, was_flagged, is_taken)
        else:
            has_word, num_words = is_caused | was_flagged, np.zeros(len(rest))
            for candidate in candidates:
                has_word[candidate.all_rows] = True
            for word in cause.words:
                num_words[self.rows_of[word]] += 1
            found = beyond(rest, (num_words > 0) & ~is_taken, looked_at[~has_word], num_words)
        for candidate in candidates:
            is_own = 2 * len(candidate.all_rows) >= is_caused.sum() and candidate.word in self.rows_of
            if is_own and (is_caused | was_flagged)[candidate.all_rows].all():
                found[self.rows_of[candidate.word]] = True
        return np.flatnonzero(found & ~is_taken)

    def _beyond_half(
        self, looked_at: np.ndarray, rest: np.ndarray, was_flagged: np.ndarray, is_taken: np.ndarray
    ) -> np.ndarray:
        """For a cause of whole responses: the rows as far out as the mostly unexplained ones among those looked at."""
        null = mirrored(looked_at[~was_flagged])
        half = next(one.all_rows for one in self.finder.candidates if one.word == WHOLE_RESPONSES)
        is_unexplained = np.isin(np.arange(len(looked_at)), half)
        among = beyond(looked_at, ~was_flagged, null, np.ones(len(looked_at)))
        among = mostly_unexplained(among, looked_at, is_unexplained)
        found = beyond(rest, ~is_taken, null, np.ones(len(rest)))
        return found & (rest >= min(looked_at[among], default=np.inf))

    def _predict(self, probe: CrossFit, cause: Cause, target: np.ndarray) -> np.ndarray:
        """The prediction of a cause for the other rows. Shape `(N,)`."""
        rows, of = self.rest.rows.row_values, self.finder.finder.probe_features.of
        parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
        features = (of(part, cause.is_by_place)[cause.source] for part in parts)
        return np.concatenate([probe.predict_others(part, target)[:, 0] for part in features])


def rows_with_words(rows: TokenStatistics, words: Collection[str], tokenizer: Any) -> dict[str, np.ndarray]:
    """
    The rows that have words.

    Args:
        rows ([`TokenStatistics`]):
            Rows with their tokens.
        words (`Collection[str]`):
            Words and whole responses, as [`locate_words`] writes them.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.

    Returns:
        `dict[str, np.ndarray]`: of each word the positions of its rows, ascending, int64.
    """
    result = {word: np.zeros(0, dtype=np.int64) for word in words}
    letters = {"".join(word.split()) for word in words}
    for start in range(0, len(rows), CHUNK) if words else ():
        # Searching the text is much faster than splitting it into words
        part = np.arange(start, min(start + CHUNK, len(rows)))
        # An array is decoded as a whole; in a list each number would be checked
        texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in rows.take(part).tokens_by_row()]
        squeezed = ["".join(text.lower().split()) for text in texts]
        part = part[[any(word in text for word in letters) for text in squeezed]]
        places = locate_words(rows.take(part), tokenizer)
        numbers = {word: number for number, word in enumerate(places.vocabulary)}
        for word in words & numbers.keys():
            found = part[np.unique(places.rows[places.words == numbers[word]])]
            result[word] = np.concatenate([result[word], found])
    return result
