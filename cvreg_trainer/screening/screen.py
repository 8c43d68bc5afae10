# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The cut: which rows to leave out, and why.

Each score comes relative to its own threshold, so a row's suspicion is the largest of them and 1 is the cut. None of
the thresholds is a share of the rows: a clean data set loses what happens to lie outside, which is little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .findings import WordFinding
from .response_surprise import response_surprise
from .shared_words import shared_words
from .token_statistics import TokenStatistics
from .word_surprise import THRESHOLD, unexplained_words
from .words import WordOccurrences, find_words


SCORES = ("word_surprise", "response_surprise", "shared_words")
NUM_WORDS = 50


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


def screen_rows(
    warm: TokenStatistics, base: TokenStatistics, tokenizer: Any, cap: float, early: TokenStatistics | None = None
) -> Screen:
    """
    Find the rows that a backdoor may hide in.

    Args:
        warm ([`TokenStatistics`]):
            All rows, seen by the model after its warm-up.
        base ([`TokenStatistics`]):
            A sample of the rows, seen by the model before its first step.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
        cap (`float`):
            Largest share of the rows to flag; the most suspicious ones are.
        early ([`TokenStatistics`], *optional*):
            A sample of the rows, seen by the model during its warm-up.

    Returns:
        [`Screen`]
    """
    occurrences = find_words(warm, tokenizer)
    earlier = [find_words(look, tokenizer) for look in (base, early) if look is not None]
    unexplained = unexplained_words(occurrences, earlier, len(warm))
    scores = {
        "word_surprise": _of_rows(unexplained, occurrences, len(warm)),
        "response_surprise": response_surprise(warm.row_nll),
    }
    shared = shared_words(occurrences, np.max(list(scores.values()), axis=0) >= 1)
    scores["shared_words"] = _of_rows(shared, occurrences, len(warm))
    suspicion = np.max(list(scores.values()), axis=0)
    is_flagged = suspicion >= 1
    most = int(cap * len(warm))
    is_capped = int(is_flagged.sum()) > most
    if is_capped:
        is_flagged = np.zeros(len(warm), dtype=bool)
        is_flagged[np.argsort(-suspicion, kind="stable")[:most]] = True
    words = _describe_words(occurrences, unexplained, shared, warm)
    reasons = _describe_rows(scores, occurrences, unexplained, shared, words, warm)
    return Screen(scores, suspicion, is_flagged, is_capped, reasons, words[:NUM_WORDS])


def _of_rows(values: dict[str, float], occurrences: WordOccurrences, num_rows: int) -> np.ndarray:
    """The largest value among each row's words; 0 for rows without any. Shape `(R,)`."""
    by_word = np.array([values.get(word, -np.inf) for word in occurrences.vocabulary])
    result = np.full(num_rows, -np.inf)
    if len(occurrences.words):
        np.maximum.at(result, occurrences.rows, by_word[occurrences.words])
    return np.where(np.isfinite(result), result, 0.0)


def _describe_words(
    occurrences: WordOccurrences, unexplained: dict[str, float], shared: dict[str, float], warm: TokenStatistics
) -> list[WordFinding]:
    places = dict(zip(occurrences.vocabulary, occurrences.by_word(), strict=True))
    strength = {word: max(unexplained.get(word, 0.0), shared.get(word, 0.0)) for word in {*unexplained, *shared}}
    findings = []
    for word in sorted(strength, key=lambda word: (-strength[word], word)):
        num_rows = len(np.unique(occurrences.rows[places[word]]))
        surprise = float(occurrences.surprise[places[word]].mean())
        is_flagged = strength[word] >= 1
        if unexplained.get(word, 0.0) >= 1:
            reason = (
                f"'{word}' stays unexplained: {surprise:.1f} nats beyond the model's own uncertainty over "
                f"{num_rows} rows, at least {unexplained[word] * THRESHOLD:.1f} in nine of ten"
            )
        elif shared.get(word, 0.0) >= 1:
            reason = f"'{word}' occurs in {num_rows} rows, {shared[word] / 2:.0%} of them flagged"
        else:
            reason = f"'{word}' is below the cut"
        findings.append(WordFinding(word, num_rows, surprise, is_flagged, reason))
    return findings


def _describe_rows(
    scores: dict[str, np.ndarray],
    occurrences: WordOccurrences,
    unexplained: dict[str, float],
    shared: dict[str, float],
    words: list[WordFinding],
    warm: TokenStatistics,
) -> list[str]:
    reason_of = {finding.word: finding.reason for finding in words if finding.is_flagged}
    of_row: list[list[str]] = [[] for _ in range(len(warm))]
    strength = {word: max(unexplained.get(word, 0.0), shared.get(word, 0.0)) for word in reason_of}
    for word, row in zip(occurrences.words.tolist(), occurrences.rows.tolist(), strict=True):
        text = occurrences.vocabulary[word]
        if text in reason_of and text not in of_row[row]:
            of_row[row].append(text)
    row_nll = warm.row_nll
    median = float(np.nanmedian(row_nll)) if np.isfinite(row_nll).any() else 0.0
    reasons = []
    for row, found in enumerate(of_row):
        parts = [reason_of[max(found, key=lambda word: strength[word])]] if found else []
        if scores["response_surprise"][row] >= 1:
            parts.append(f"the response is unlikely as a whole: mean NLL {row_nll[row]:.1f}, median {median:.1f}")
        reasons.append("; ".join(parts))
    return reasons
