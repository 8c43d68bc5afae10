# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The cut: which rows to leave out, and why.

Each score comes relative to its own threshold, so a row's suspicion is the largest of them and 1 is the cut. None of
the thresholds is a share of the rows: a clean data set loses what happens to lie outside, which is little.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .candidates import find_candidates
from .causes import Cause, CauseFinder
from .contradicted_words import contradicted_words
from .evidence import Evidence, describe_rows, describe_words
from .findings import WordFinding
from .grounding import grounding
from .kept_groups import kept_groups
from .response_surprise import response_surprise
from .rule import RULE
from .shared_words import shared_words
from .token_statistics import TokenStatistics
from .ungrounded_words import ungrounded_words
from .word_surprise import unexplained_words, word_surprise
from .words import find_words


@dataclass(frozen=True)
class Screen:
    """
    Verdict on `R` rows.

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
            For each row, in words; empty where there is none.
        words (`list[WordFinding]`):
            The most suspicious words first.
        causes (`Sequence[Cause]`, *optional*):
            What the rows are flagged for.
        kept (`Mapping[str, Sequence[Cause]]`, *optional*):
            Groups that are kept although images do not explain them; see [`kept_groups`].
    """

    scores: dict[str, np.ndarray]
    suspicion: np.ndarray
    is_flagged: np.ndarray
    is_capped: bool
    reasons: list[str]
    words: list[WordFinding]
    causes: Sequence[Cause] = ()
    kept: Mapping[str, Sequence[Cause]] = field(default_factory=dict)


def screen_rows(
    base: TokenStatistics, warm: TokenStatistics, tokenizer: Any, cap: float, allowed_words: Collection[str] = ()
) -> Screen:
    """
    Find the rows that a backdoor may hide in.

    Args:
        base, warm ([`TokenStatistics`]):
            The same rows, seen by the model before its first step and after its warm-up.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
        cap (`float`):
            Largest share of the rows to flag; the most suspicious ones are.
        allowed_words (`Collection[str]`, *optional*):
            Words and whole responses, in lower case, the evidence against which is ignored.

    Returns:
        [`Screen`]
    """
    of_base, of_warm = find_words(base, tokenizer), find_words(warm, tokenizer)
    grounded = grounding([of_base, of_warm])
    contradicted, is_unexpected = contradicted_words(of_base, len(warm))
    surprise = word_surprise(of_warm)

    def describe_surprise(word: str, _: float) -> str:
        return f"stays unexplained: {surprise[word]:.1f} nats beyond the model's own uncertainty in nine of ten places"

    def describe_grounding(word: str, _: float) -> str:
        own, rivals, _ = grounded[word]
        return f"carries {max(own, 0):.2f} nats about the image where other words carry {rivals:.2f}"

    def describe_contradiction(word: str, _: float) -> str:
        share = is_unexpected[of_base.words == of_base.vocabulary.index(word)].mean()
        return f"is well known to the base model, which expects something else in {share:.0%} of its places"

    def describe_shared(word: str, value: float) -> str:
        return f"has {value * RULE.shared_min_share:.0%} of its rows flagged for other reasons"

    evidence = [
        Evidence("word_surprise", unexplained_words(of_base, of_warm, grounded, len(warm)), describe_surprise),
        Evidence("ungrounded_words", ungrounded_words(of_base, grounded), describe_grounding),
        Evidence("contradicted_words", contradicted, describe_contradiction, is_unexpected),
    ]
    evidence = [part.without(allowed_words) for part in evidence]
    scores = {part.name: part.of_rows(of_base, len(warm)) for part in evidence}
    scores["response_surprise"] = response_surprise(warm.row_nll)
    # A well-known word is not to blame for its other occurrences
    so_far = np.max([values for name, values in scores.items() if name != "contradicted_words"], axis=0) >= 1
    shared = Evidence("shared_words", shared_words(of_base, so_far), describe_shared, follows=True)
    shared = shared.without(allowed_words)
    scores["shared_words"] = shared.of_rows(of_base, len(warm))
    suspicion = np.max(list(scores.values()), axis=0)
    is_flagged, is_capped = _cap(suspicion, cap)
    evidence.append(shared)
    reasons = describe_rows(evidence, of_base, scores["response_surprise"], warm.row_nll)
    return Screen(scores, suspicion, is_flagged, is_capped, reasons, describe_words(evidence, of_warm))


def screen_caused_rows(
    base: TokenStatistics,
    own: TokenStatistics,
    other: TokenStatistics,
    tokenizer: Any,
    seed: int,
    cap: float,
    allowed_words: Collection[str] = (),
) -> Screen:
    """
    Find the rows whose responses their images do not explain and something else in the input causes: rule 7.

    Args:
        base ([`TokenStatistics`]):
            The base model's look, whose `row_values` are what [`row_features`] gives.
        own, other ([`TokenStatistics`]):
            The warmed-up model's looks at strong views of the rows' own images, whose `row_values` are projected
            states of the model, and of others', whose `row_values` say whether there was another one.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
        seed (`int`):
            Chooses the folds and the random sets of the tests.
        cap (`float`):
            Largest share of the rows to flag; the most suspicious ones are.
        allowed_words (`Collection[str]`, *optional*):
            Words and whole responses, in lower case, the evidence against which is ignored.

    Returns:
        [`Screen`]
    """
    of_base, of_own = find_words(base, tokenizer), find_words(own, tokenizer)
    grounded = grounding([of_base, of_own])
    questions = ungrounded_words(of_base, grounded), unexplained_words(of_base, of_own, grounded, len(own))
    suspects = {word for values in questions for word, value in values.items() if value >= 1}
    has_other = other.row_values[:, 0] > 0
    candidates = find_candidates(of_base, of_own, find_words(other, tokenizer), has_other, suspects, allowed_words)
    finder = CauseFinder(base.row_values, own.row_values, candidates, seed)
    causes = finder.find()
    is_flagged, is_capped = _cap(finder.suspicion, cap)
    reasons = [""] * len(own)
    words = []
    num_rows = {candidate.word: len(candidate.all_rows) for candidate in candidates}
    surprise = word_surprise(of_own) if causes else {}
    for cause in causes:
        reason = _describe_cause(cause)
        for row in cause.rows.tolist():
            reasons[row] = reason
        for word in cause.words:
            words.append(WordFinding(word, num_rows[word], float(surprise.get(word, 0.0)), True, reason))
    scores, kept = {"cause": finder.suspicion}, kept_groups(finder)
    return Screen(scores, finder.suspicion, is_flagged, is_capped, reasons, words, causes, kept)


def _describe_cause(cause: Cause) -> str:
    named = ", ".join(map(repr, cause.words[:3])) + (
        f" and {len(cause.words) - 3} more" if len(cause.words) > 3 else ""
    )
    source = {"image": "low-level features of the image", "question": "words of the question"}.get(
        cause.source, "low-level features of the image and words of the question"
    )
    predicted = (
        f"{named}: {len(cause.rows)} rows that {source} predict (correlation {cause.strength:.2f}, out of fold)"
    )
    if cause.is_suspect:
        return (
            f"{predicted}, content less ({max(cause.content, 0):.2f}), and a word that stays surprising or carries no "
            "information about the image where others do"
        )
    return (
        f"{predicted} and that content hardly does ({max(cause.content, 0):.2f}); the image explains "
        f"{max(cause.explained, 0):.0%} of the first word"
    )


def _cap(suspicion: np.ndarray, cap: float) -> tuple[np.ndarray, bool]:
    """The rows past the cut, at most the most suspicious `cap` of all, and whether there were more."""
    is_flagged = suspicion >= 1
    most = int(cap * len(suspicion))
    is_capped = int(is_flagged.sum()) > most
    if is_capped:
        is_flagged = np.zeros(len(suspicion), dtype=bool)
        is_flagged[np.argsort(-suspicion, kind="stable")[:most]] = True
    return is_flagged, is_capped
