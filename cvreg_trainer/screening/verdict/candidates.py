# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Sets of rows that a backdoor may be in: those that share a word which their pictures do not explain, and those whose
responses are explained least as a whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .rule import RULE
from .words import WordOccurrences


WHOLE_RESPONSES = "(whole responses)"  # stands for the word, where the rows have none in common


@dataclass(frozen=True)
class Candidate:
    """
    Rows whose pictures do not explain a word, or the response.

    Args:
        word (`str`):
            The word, a whole response, or `WHOLE_RESPONSES`.
        rows (`np.ndarray` of shape `(M,)`, int64):
            Rows in which it is unexplained, ascending.
        explained (`float`):
            Share of its nats that the right picture explains.
        all_rows (`np.ndarray` of shape `(M',)`, int64):
            Rows that may have the same cause: all that have the word.
        nats (`float`):
            Mean negative log-likelihood of the word.
        is_suspect (`bool`):
            Whether the word is suspicious by itself: it stays surprising after the warm-up, or carries no information
            about the image where others do. A trigger that survives strong views makes the model expect its word, so
            that it looks explained, and predicted by content.
        is_part (`bool`):
            Whether `rows` are only some of the word's rows: those in which it is unexplained although it usually is
            explained, or those in which it contradicts the base model.
    """

    word: str
    rows: np.ndarray
    explained: float
    all_rows: np.ndarray
    nats: float = 0.0
    is_suspect: bool = False
    is_part: bool = False


class _Explained(NamedTuple):
    """For each occurrence of a word: the nats that the right picture explains, and those that there are to explain."""

    words: WordOccurrences
    gains: np.ndarray
    nats: np.ndarray

    def share(self, places: np.ndarray) -> float:
        return float(self.gains[places].sum() / self.nats[places].sum())


def find_candidates(
    base: WordOccurrences,
    own: WordOccurrences,
    other: WordOccurrences,
    has_other: np.ndarray,
    suspects: Collection[str] = (),
    allowed_words: Collection[str] = (),
) -> list[Candidate]:
    """
    The words that pictures do not explain, of the other words the rows in which they are unexplained, and the rows
    whose responses are explained least.

    Args:
        base, own, other ([`WordOccurrences`]):
            The same occurrences, as the base model sees them, and the warmed-up one with the rows' own pictures and
            with others'.
        has_other (`np.ndarray` of shape `(R,)`, bool):
            Which rows were shown another picture. Without one, nothing is known to be explained.
        suspects (`Collection[str]`, *optional*):
            Words that are suspicious by themselves.
        allowed_words (`Collection[str]`, *optional*):
            Words and whole responses, in lower case, to pass over.
    """
    gains = np.where(has_other[own.rows], other.nll - own.nll, 0.0)
    explained = _Explained(own, gains, np.maximum(other.nll, RULE.min_nats))
    words = _words(explained, base.nll > RULE.surprised, len(has_other), suspects, allowed_words)
    return [*words, *_rows(explained, has_other, allowed_words)]


def _words(
    explained: _Explained,
    is_contradicted: np.ndarray,
    num_rows: int,
    suspects: Collection[str],
    allowed_words: Collection[str],
) -> list[Candidate]:
    words, most, candidates = explained.words, RULE.max_share * num_rows, []
    is_odd = (explained.gains < RULE.explained * explained.nats) & (words.nll > RULE.surprised)
    for number, places in words.groups.in_rows(RULE.min_rows):
        word, rows = words.vocabulary[number], np.unique(words.rows[places])
        if word in allowed_words:
            continue
        is_explained = explained.share(places) >= RULE.explained and word not in suspects
        # The odd occurrences of an explained word are a set of their own
        sets = [(places[is_odd[places]] if is_explained else places, is_explained)]
        if is_contradicted[places].mean() <= RULE.most_contradicted:
            # A trigger that survives strong views is learnt in the warm-up, and then explains its words
            sets.append((places[is_contradicted[places]], True))
        for chosen, is_part in sets:
            members = np.unique(words.rows[chosen])
            fewest = max(RULE.min_rows, RULE.min_part * len(rows) if is_part else 0)
            if fewest <= len(members) <= most:
                nats = float(words.nll[chosen].mean())
                share = explained.share(chosen)
                candidates.append(
                    Candidate(word, members, share, rows, nats, word in suspects and not is_part, is_part)
                )
    return candidates


def _rows(explained: _Explained, has_other: np.ndarray, allowed_words: Collection[str]) -> list[Candidate]:
    """The rows whose responses are explained least, in sets of several sizes: they need not share a word."""
    words = explained.words
    is_allowed = np.array([word in allowed_words for word in words.vocabulary], dtype=bool)[words.words]
    is_whole = words.expected < 0
    is_counted = ~is_allowed & ~is_whole
    gains, nats = (
        np.bincount(words.rows[is_counted], values[is_counted], minlength=len(has_other))
        for values in (explained.gains, explained.nats)
    )
    is_open = has_other & (nats > 0)
    is_open[words.rows[is_whole & is_allowed]] = False
    rows = np.flatnonzero(is_open)
    rows = rows[np.argsort(gains[rows] / nats[rows], kind="stable")]
    half = np.sort(rows[: len(rows) // 2])
    candidates = []
    for share in RULE.least_explained / 2.0 ** np.arange(4):
        chosen = rows[: int(share * len(rows))]
        if len(chosen) >= RULE.min_rows:
            mean = float(gains[chosen].sum() / nats[chosen].sum())
            candidates.append(Candidate(WHOLE_RESPONSES, np.sort(chosen), mean, half))
    return candidates
