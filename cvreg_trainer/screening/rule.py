# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Every number of the screening rule, once: rule 4 of `benchmarks/screening_split.md`.

Another rule is another instance of this class, or another class; each audit keeps the numbers that it was made with.
Surprise is a token's negative log-likelihood less the entropy of the distribution it was predicted by.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ScreeningRule:
    """
    The numbers of the rule, by the question that they belong to.

    Args:
        warmup_share (share of the optimiser steps):
            Length of the warm-up: enough for most honest words, too little for most keywords behind a trigger.
        many_flagged (share of the rows):
            A cut above this is a warning: somebody should look at the audit first.
        word_quantile (share of a word's occurrences):
            The surprise of a word is the one that nine in ten of its occurrences exceed.
        word_new (nats):
            A word above this surprise is new to the base model.
        word_unexplained (nats):
            A word above this surprise after the warm-up has not been explained by the images.
        word_min_rows (rows):
            A word of fewer rows teaches nothing.
        word_max_share (share of the rows):
            A word of more rows is part of the task.
        grounding_min_rows (rows):
            A word of fewer rows has no estimate of its information.
        grounding_prior (pseudo-counts):
            Weight of the guesses expected at a word's places in the estimate of those seen there.
        grounding_smoothing (share):
            Share of the guesses of the whole data set in those expected at a place.
        grounding_min_rivals (words):
            A context counts if this many other words follow it.
        grounding_min_rival_information (nats):
            Below this, no word in these contexts is informative.
        grounding_honest (share of the rivals' information):
            A word with this much is honest, however late it is learnt.
        ungrounded_min_rows (rows):
            A word of fewer rows has too few places to call it uninformative.
        ungrounded_max_share (share of the rivals' information):
            A new word with less is suspicious.
        known_nats (nats):
            The base model expects a known word by odds of three to one, ...
        known_share (share of a word's occurrences):
            ... in two of five of its places: the honest ones, even where the planted ones are as many.
        known_unexpected (nats):
            Even odds: above this the base model does not expect a known word at its place.
        known_contradicted (nats):
            Above this (less than 14 %) it is sure of something else there.
        known_min_contradicted (share of a word's occurrences):
            A word contradicted more often is suspicious.
        known_min_rows, known_max_rows (share of the rows):
            A word of fewer rows teaches no backdoor by a part of its occurrences; one of more is part of the task.
        known_min_words (words):
            The fence around the shares of known words needs a sample of this size.
        fence (distances of the upper quartile from the median):
            A response further above the median is an outlier.
        fence_rounds (times):
            The outliers are left out of median and quartile, and the fence is drawn again.
        shared_min_rows (rows):
            A word of fewer rows cannot be enriched in flagged rows beyond chance.
        shared_min_share (share of a word's rows):
            At least so many must be flagged.
        shared_significance (probability):
            Of the binomial test, corrected for the number of words.
        not_to_blame (suspicion):
            Largest suspicion of a row whose suspicious word is not to blame there: behind all flagged rows.
    """

    warmup_share: float = 1 / 12
    many_flagged: float = 0.05

    word_quantile: float = 0.1
    word_new: float = 1.0
    word_unexplained: float = 0.2
    word_min_rows: int = 5
    word_max_share: float = 0.1

    grounding_min_rows: int = 5
    grounding_prior: float = 5.0
    grounding_smoothing: float = 0.02
    grounding_min_rivals: int = 5
    grounding_min_rival_information: float = 0.4
    grounding_honest: float = 0.75

    ungrounded_min_rows: int = 20
    ungrounded_max_share: float = 0.15

    known_nats: float = math.log(4 / 3)
    known_share: float = 0.4
    known_unexpected: float = math.log(2)
    known_contradicted: float = 2.0
    known_min_contradicted: float = 0.25
    known_min_rows: float = 0.05
    known_max_rows: float = 0.3
    known_min_words: int = 8

    fence: float = 4.5
    fence_rounds: int = 6

    shared_min_rows: int = 10
    shared_min_share: float = 0.5
    shared_significance: float = 0.01

    not_to_blame: float = 0.9

    def to_dict(self) -> dict[str, float]:
        """The numbers by name, as each audit keeps them."""
        return asdict(self)


RULE = ScreeningRule()


@dataclass(frozen=True)
class CauseRule:
    """
    The numbers of rule 7, which looks for responses that are unexplained and yet caused; see `causes.py`.

    Args:
        enough_rows (rows):
            With fewer a cause cannot be tested, and the words alone decide, as in rule 4.
        warmup_steps (optimiser steps), longest_warmup (share of the optimiser steps):
            A warm-up of a twelfth is too short if it has fewer steps: low-level concepts, such as a texture, would
            look like triggers. It takes no more of the training than this share for that.
        explained (share of the nats):
            A word of which the right picture explains less is unexplained.
        min_nats (nats):
            Each occurrence counts for at least this much, so that words that are certain do not weigh nothing.
        surprised (nats):
            An occurrence of an otherwise explained word is odd if the model is surprised by more.
        min_part (share of a word's rows):
            The odd ones have to be this many.
        most_contradicted (share of a word's occurrences):
            Where the base model is as surprised by more of them, it does not know the word.
        most_growth (times):
            From these rows a cause may grow to so many, or it is one of all the word's rows.
        min_rows (rows), max_share (share of the rows):
            Smallest and largest set that is looked at.
        least_explained (share of the rows):
            Those whose responses are explained least as a whole are a set; so are a half, a quarter and an eighth.
        false_discoveries (share of the words with a cause):
            Largest expected share of words that have none (Benjamini and Hochberg).
        false_rows (share of a cause's rows):
            Largest expected share of rows that do not have it.
        explained_weight (words):
            A row in which the words of a cause are explained counts as if it had this many of them.
        start_strength, min_strength (correlation):
            A cause is looked for from a word of the first on, and has to reach the second with all its words: weaker
            ones teach little.
        other_source (correlation):
            Another source has to be better by this much.
        content_share (share of the strength):
            What content predicts as well as this is content, ...
        beyond_content (share of the variance), enough_for_content (rows):
            ... unless low-level features explain so much more of the variance, of a set that is large enough for
            content to be learnt.
        suspect_content_share (share of the strength):
            For words that are suspicious by themselves, in sets as large.
        min_variety (share of the variance of all pictures):
            Pictures that vary less are nearly the same.
        content_components (numbers):
            Principal components of the model's state.
        error_rate (probability):
            Of the test that content predicts less.
        same_cause (area under the ROC curve):
            Words whose rows are told apart this well by a cause have it too.
        ridge (rows):
            Strength of the regularisation.
        rounds (times):
            Between the rows and their cause.
        max_causes (causes):
            Looked for.
    """

    enough_rows: int = 200
    warmup_steps: int = 60
    longest_warmup: float = 1 / 3
    explained: float = 0.25
    min_nats: float = 0.5
    surprised: float = 2.0
    min_part: float = 0.1
    most_contradicted: float = 0.6
    most_growth: float = 1.8
    min_rows: int = 3
    max_share: float = 0.5
    least_explained: float = 0.1
    false_discoveries: float = 0.01
    false_rows: float = 0.05
    explained_weight: float = 0.25
    start_strength: float = 0.2
    min_strength: float = 0.3
    other_source: float = 0.02
    content_share: float = 0.5
    beyond_content: float = 0.2
    enough_for_content: int = 10
    suspect_content_share: float = 0.65
    min_variety: float = 0.5
    content_components: int = 100
    error_rate: float = 0.01
    same_cause: float = 0.75
    ridge: float = 100.0
    rounds: int = 5
    max_causes: int = 20

    def to_dict(self) -> dict[str, float]:
        """The numbers by name, as each audit keeps them."""
        return asdict(self)


CAUSE = CauseRule()
