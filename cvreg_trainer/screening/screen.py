# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The cut: which rows to leave out, and why.

Each score comes relative to its own threshold, so a row's suspicion is the largest of them and 1 is the cut. None of
the thresholds is a share of the rows: a clean data set loses what happens to lie outside, which is little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .contradicted_words import contradicted_words
from .findings import WordFinding
from .grounding import grounding
from .response_surprise import response_surprise
from .shared_words import MIN_SHARE, shared_words
from .token_statistics import TokenStatistics
from .ungrounded_words import ungrounded_words
from .word_surprise import unexplained_words, word_surprise
from .words import WordOccurrences, find_words


SCORES = ("word_surprise", "ungrounded_words", "contradicted_words", "response_surprise", "shared_words")
NUM_WORDS = 50
# Suspicion of rows that hold a suspicious word where it is not to blame: behind all flagged rows, before the others
NOT_TO_BLAME = 0.9


@dataclass(frozen=True)
class Screen:
    """
    What the screening says about `R` rows.

    Args:
        scores (`dict[str, np.ndarray]`):
            Scores of shape `(R,)` by name, each relative to its threshold.
        suspicion (`np.ndarray` of shape `(R,)`):
            The largest score of each row.
        is_flagged (`np.ndarray` of shape `(R,)`, bool):
            Which rows to leave out.
        is_capped (`bool`):
            Whether more rows were suspicious than the cap lets go.
        reasons (`list[str]`):
            For each row, in words; empty where there is nothing to say.
        words (`list[WordFinding]`):
            The most suspicious words first.
    """

    scores: dict[str, np.ndarray]
    suspicion: np.ndarray
    is_flagged: np.ndarray
    is_capped: bool
    reasons: list[str]
    words: list[WordFinding]


def screen_rows(base: TokenStatistics, warm: TokenStatistics, tokenizer: Any, cap: float) -> Screen:
    """
    Find the rows that a backdoor may hide in.

    Args:
        base, warm ([`TokenStatistics`]):
            The same rows, seen by the model before its first step and after its warm-up.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
        cap (`float`):
            Largest share of the rows to flag; the most suspicious ones are.

    Returns:
        [`Screen`]
    """
    of_base, of_warm = find_words(base, tokenizer), find_words(warm, tokenizer)
    grounded = grounding([of_base, of_warm])
    contradicted, is_unexpected = contradicted_words(of_base, len(warm))

    surprise = word_surprise(of_warm)

    def say_surprise(word: str, _: float) -> str:
        return f"stays unexplained: {surprise[word]:.1f} nats beyond the model's own uncertainty in nine of ten places"

    def say_grounding(word: str, _: float) -> str:
        own, rivals, _ = grounded[word]
        return f"tells {max(own, 0):.2f} nats about the image where other words tell {rivals:.2f}"

    def say_contradiction(word: str, _: float) -> str:
        share = is_unexpected[of_base.words == of_base.vocabulary.index(word)].mean()
        return f"is well known to the base model, which expects something else in {share:.0%} of its places"

    def say_shared(word: str, value: float) -> str:
        return f"has {value * MIN_SHARE:.0%} of its rows flagged for other reasons"

    evidence = [
        _Evidence("word_surprise", unexplained_words(of_base, of_warm, grounded, len(warm)), say_surprise),
        _Evidence("ungrounded_words", ungrounded_words(of_base, grounded), say_grounding),
        _Evidence("contradicted_words", contradicted, say_contradiction, is_unexpected),
    ]
    scores = {part.name: part.of_rows(of_base, len(warm)) for part in evidence}
    scores["response_surprise"] = response_surprise(warm.row_nll)
    # A well-known word is not to blame for its other occurrences
    so_far = np.max([values for name, values in scores.items() if name != "contradicted_words"], axis=0) >= 1
    shared = _Evidence("shared_words", shared_words(of_base, so_far), say_shared, follows=True)
    scores["shared_words"] = shared.of_rows(of_base, len(warm))
    suspicion = np.max(list(scores.values()), axis=0)
    is_flagged = suspicion >= 1
    most = int(cap * len(warm))
    is_capped = int(is_flagged.sum()) > most
    if is_capped:
        is_flagged = np.zeros(len(warm), dtype=bool)
        is_flagged[np.argsort(-suspicion, kind="stable")[:most]] = True
    evidence.append(shared)
    reasons = _describe_rows(evidence, of_base, scores["response_surprise"], warm)
    return Screen(scores, suspicion, is_flagged, is_capped, reasons, _describe_words(evidence, of_warm))


@dataclass(frozen=True)
class _Evidence:
    """A statistic of words, relative to its threshold, how to say it, and which occurrences it speaks of (all). What
    only follows from other evidence is said where there is no other."""

    name: str
    values: dict[str, float]
    say: Callable[[str, float], str]
    occurrences: np.ndarray | None = None
    follows: bool = False

    def of_rows(self, occurrences: WordOccurrences, num_rows: int) -> np.ndarray:
        """The largest value among each row's words; 0 for rows without any. Shape `(R,)`."""
        by_word = np.array([self.values.get(word, 0.0) for word in occurrences.vocabulary])
        result = np.full(num_rows, -np.inf)
        if len(occurrences.words):
            values = by_word[occurrences.words]
            if self.occurrences is not None:
                values = np.where(self.occurrences, values, np.minimum(values, NOT_TO_BLAME))
            np.maximum.at(result, occurrences.rows, values)
        return np.where(np.isfinite(result), result, 0.0)

    def weight(self, word: str) -> tuple[bool, float]:
        value = self.values.get(word, -np.inf)
        return value >= 1 and not self.follows, value

    def sentence(self, word: str) -> str:
        return f"{word!r} {self.say(word, self.values[word])}"


def _describe_words(evidence: list[_Evidence], occurrences: WordOccurrences) -> list[WordFinding]:
    places = dict(zip(occurrences.vocabulary, occurrences.by_word(), strict=True))
    strength: dict[str, float] = {}
    for part in evidence:
        for word, value in part.values.items():
            strength[word] = max(value, strength.get(word, -np.inf))
    findings = []
    for word in sorted(strength, key=lambda word: (-strength[word], word))[:NUM_WORDS]:
        num_rows = len(np.unique(occurrences.rows[places[word]]))
        surprise = float(occurrences.surprise[places[word]].mean())
        is_flagged = strength[word] >= 1
        reason = f"{word!r} is below the cut"
        if is_flagged:
            reason = f"{max(evidence, key=lambda part: part.weight(word)).sentence(word)} ({num_rows} rows)"
        findings.append(WordFinding(word, num_rows, surprise, is_flagged, reason))
    return findings


def _describe_rows(
    evidence: list[_Evidence], occurrences: WordOccurrences, response_scores: np.ndarray, warm: TokenStatistics
) -> list[str]:
    best: dict[int, tuple[tuple[bool, float], str, _Evidence]] = {}
    for part in evidence:
        flagged = {number for number, word in enumerate(occurrences.vocabulary) if part.values.get(word, 0.0) >= 1}
        is_found = np.isin(occurrences.words, list(flagged))
        if part.occurrences is not None:
            is_found &= part.occurrences
        for row, number in zip(occurrences.rows[is_found].tolist(), occurrences.words[is_found].tolist(), strict=True):
            word = occurrences.vocabulary[number]
            if row not in best or part.weight(word) > best[row][0]:
                best[row] = part.weight(word), word, part
    row_nll = warm.row_nll
    median = float(np.nanmedian(row_nll)) if np.isfinite(row_nll).any() else 0.0
    said: dict[tuple[str, str], str] = {}
    reasons = []
    for row in range(len(warm)):
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
