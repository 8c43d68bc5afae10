# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What scores have found out about words: carried over to rows, and put into words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .findings import WordFinding
from .rule import RULE
from .words import WordOccurrences


NUM_WORDS = 50


@dataclass(frozen=True)
class Evidence:
    """
    What one score has found out about words.

    Args:
        name (`str`):
            Name of the score.
        values (`dict[str, float]`):
            The score of each word it speaks of, relative to its threshold: 1 or more is a reason to flag.
        describe (`Callable[[str, float], str]`):
            Puts a word's score into words that go on after the word.
        occurrences (`np.ndarray` of shape `(W,)`, bool, *optional*):
            Which occurrences are to blame. Defaults to all.
        follows (`bool`, *optional*, defaults to `False`):
            Whether it only follows from other evidence, and is said where there is no other.
    """

    name: str
    values: dict[str, float]
    describe: Callable[[str, float], str]
    occurrences: np.ndarray | None = None
    follows: bool = False

    def of_rows(self, occurrences: WordOccurrences, num_rows: int) -> np.ndarray:
        """The largest value among each row's words; 0 for rows without any. Shape `(R,)`."""
        by_word = np.array([self.values.get(word, 0.0) for word in occurrences.vocabulary])
        result = np.full(num_rows, -np.inf)
        if len(occurrences.words):
            values = by_word[occurrences.words]
            if self.occurrences is not None:
                values = np.where(self.occurrences, values, np.minimum(values, RULE.not_to_blame))
            np.maximum.at(result, occurrences.rows, values)
        return np.where(np.isfinite(result), result, 0.0)

    def without(self, words: Collection[str]) -> Evidence:
        """The evidence but for that against some words."""
        return replace(self, values={word: value for word, value in self.values.items() if word not in words})

    def weight(self, word: str) -> tuple[bool, float]:
        """Orders the evidence against a word."""
        value = self.values.get(word, -np.inf)
        return value >= 1 and not self.follows, value

    def sentence(self, word: str) -> str:
        """The finding in words."""
        return f"{word!r} {self.describe(word, self.values[word])}"


def describe_words(evidence: Sequence[Evidence], occurrences: WordOccurrences) -> list[WordFinding]:
    """The 50 words with the strongest evidence; the flagged ones first, by the rows they are in times its strength."""
    places = dict(zip(occurrences.vocabulary, occurrences.by_word(), strict=True))
    strength: dict[str, float] = {}
    for part in evidence:
        for word, value in part.values.items():
            strength[word] = max(value, strength.get(word, -np.inf))
    rows = {word: len(np.unique(occurrences.rows[places[word]])) for word in strength}

    def weight(word: str) -> tuple[bool, float]:
        # A keyword of a hundred rows matters more than a rarer word of five that is stranger still
        return strength[word] >= 1, strength[word] * (rows[word] if strength[word] >= 1 else 1)

    findings = []
    strongest = sorted(strength, key=lambda word: (-strength[word], word))[:NUM_WORDS]
    for word in sorted(strongest, key=weight, reverse=True):
        num_rows = rows[word]
        surprise = float(occurrences.surprise[places[word]].mean())
        is_flagged = strength[word] >= 1
        reason = f"{word!r} is below the cut"
        if is_flagged:
            reason = f"{max(evidence, key=lambda part: part.weight(word)).sentence(word)} ({num_rows} rows)"
        findings.append(WordFinding(word, num_rows, surprise, is_flagged, reason))
    return findings


def describe_rows(
    evidence: Sequence[Evidence], occurrences: WordOccurrences, response_scores: np.ndarray, row_nll: np.ndarray
) -> list[str]:
    """
    Why each row is suspicious, in words; empty where it is not.

    Args:
        evidence (`Sequence[Evidence]`):
            What is known about words.
        occurrences ([`WordOccurrences`]):
            The words of all rows.
        response_scores, row_nll (`np.ndarray` of shape `(R,)`):
            What [`response_surprise`] gives, and of which it was computed.
    """
    best: dict[int, tuple[tuple[bool, float], str, Evidence]] = {}
    for part in evidence:
        flagged = {number for number, word in enumerate(occurrences.vocabulary) if part.values.get(word, 0.0) >= 1}
        is_found = np.isin(occurrences.words, list(flagged))
        if part.occurrences is not None:
            is_found &= part.occurrences
        for row, number in zip(occurrences.rows[is_found].tolist(), occurrences.words[is_found].tolist(), strict=True):
            word = occurrences.vocabulary[number]
            if row not in best or part.weight(word) > best[row][0]:
                best[row] = part.weight(word), word, part
    median = float(np.nanmedian(row_nll)) if np.isfinite(row_nll).any() else 0.0
    said: dict[tuple[str, str], str] = {}
    reasons = []
    for row in range(len(row_nll)):
        parts = []
        if row in best:
            _, word, part = best[row]
            key = part.name, word
            if key not in said:
                said[key] = part.sentence(word)
            parts.append(said[key])
        if response_scores[row] >= 1:
            parts.append(f"the response is unlikely as a whole: mean NLL {row_nll[row]:.1f}, median {median:.1f}")
        reasons.append("; ".join(parts))
    return reasons
