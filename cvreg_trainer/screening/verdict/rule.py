# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Every number of the screening rule, in one place: rule 19 of `benchmarks/screening_split.md`, with the suspect words
that it takes from rule 4.

Another rule is another instance of this class, or another class; each audit keeps the numbers that it was made with.
Surprise is a token's negative log-likelihood less the entropy of the distribution it was predicted by, but for
`surprised`, which is compared with the likelihood itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ScreeningRule:
    """
    The numbers of the rule: for the warm-up, for words that are suspicious by themselves, for the sets of rows to
    examine, and for causes. See `screen.py`.

    Args:
        enough_rows (rows):
            With fewer rows a cause cannot be told from chance, and none is looked for.
        many_flagged (share of the rows):
            Flagging more rows than this logs a warning: somebody should look at the audit first.
        warmup_share (share of the optimiser steps):
            Length of the warm-up: enough for most honest words, too little for most keywords behind a trigger.
        warmup_steps (optimiser steps), longest_warmup (share of the optimiser steps):
            After fewer steps, low-level concepts, such as a texture, would look like triggers. To reach that many,
            the warm-up takes up to the second share of the training.
        word_quantile (share of a word's occurrences):
            The surprise of a word is the one that nine in ten of its occurrences exceed.
        word_new (nats):
            A word above this surprise is new to the base model.
        word_unexplained (nats):
            A word above this surprise after the warm-up has not been explained by the images.
        word_min_rows (rows):
            A word in fewer rows is too little evidence.
        word_max_share (share of the rows):
            A word in more rows is part of the task.
        grounding_min_rows (rows):
            The information of a word in fewer rows is not estimated.
        grounding_prior (pseudo-counts):
            Weight of the guesses expected at a word's places, as a prior of the estimate from those seen there.
        grounding_smoothing (share):
            Share of the whole data set's guesses that is mixed into those expected at a place.
        grounding_min_rivals (words):
            A context counts if other words follow it this many times.
        grounding_min_rival_information (nats):
            Below this, no word in these contexts is informative.
        grounding_honest (share of the rivals' information):
            A word with this much is honest, however late it is learnt.
        ungrounded_min_rows (rows):
            A word in fewer rows has too few places to be called uninformative.
        ungrounded_max_share (share of the rivals' information):
            A new word with less is suspicious.
        explained (share of the nats):
            A word of which the right picture explains less is unexplained.
        min_nats (nats):
            Each occurrence counts for at least this much, so that words the model is certain of carry some weight.
        surprised (nats):
            An occurrence of an otherwise explained word is odd if the model is surprised by more.
        min_part (share of a word's rows):
            Occurrences that are examined on their own have to lie in at least this many rows.
        most_contradicted (share of a word's occurrences):
            If more of them surprise the base model (see `surprised`), it does not know the word.
        most_growth (times):
            From some of a word's rows a cause may grow by at most this factor; beyond it, it is one of all its rows.
        min_rows (rows), max_share (share of the rows):
            Smallest and largest set that is examined.
        least_explained (share of the rows):
            The rows whose responses as a whole are explained least form a set; so do the least explained half, quarter
            and eighth of these.
        mostly_unexplained (share of the rows):
            At least this share of the rows of a cause found from such a set is in the less explained half.
        false_rows (share of a cause's rows):
            Largest expected share of rows that do not have the cause.
        most_of_word (share of a word's rows):
            If this share of the rows of a cause's most exclusive word has the cause, the rest of them have it too.
        explained_weight (words):
            A row in which the words of a cause are explained counts as if it had this many of them.
        start_strength, part_strength, min_strength (correlation):
            The search for a cause starts from a word that reaches the first, or from some of a word's occurrences that
            reach the second; with all its words, the cause has to reach the third: weaker ones teach a model little.
        other_source (correlation):
            Another source replaces the first one only if it is better by this much.
        weak_strength (correlation), weak_content_share (share of the strength):
            A cause below the first counts as content if content predicts it as well as the second.
        content_share (share of the strength):
            A stronger one counts as content if content predicts it this well, ...
        beyond_content (share of the variance), enough_for_content (rows):
            ... unless low-level features explain this much more of the variance, of a set that is large enough for
            content to be learnt.
        whole_beyond_content (share of the variance):
            The same for causes of whole responses, which are examined whether content predicts them or not.
        most_rivals (share of the words in a word's places):
            If more of them have a cause of their own beyond content, the model does not see what sets them apart.
        rival_cause (area under the ROC curve):
            A rival whose rows a word's cause tells apart this well has the same cause, such as another word of the
            payload.
        rival_strength (share of the strength):
            A rival's cause is at least this strong, relative to the word's.
        rival_content_share (share of the strength):
            A word does not count as a rival if content predicts it at least this well.
        suspect_content_share (share of the strength):
            As `content_share`, for words that are suspicious by themselves, in sets of `enough_for_content` or more.
        question_strength (correlation):
            The strength they need if the question predicts them, alone or together with the image: a trigger all but
            determines its response.
        fewest_shifted (filters):
            A cause that does not hold by place alone needs this many filters whose strongest response in a middling
            picture of its rows is outside the middle half of the others'.
        half_strength (correlation):
            With half of a trigger in the question, features of the image predict its rows at least this well beyond
            the question.
        in_most_questions (share of the rows):
            A trigger's words are in at least this share of its rows' questions and ten times rarer in the others, and
            at least this share of its questions is also asked without them.
        reversible_share (share of the rows):
            A larger cause is tested for being the honest part of the rows, with the poison in the rest.
        min_variety (share of the variance of all pictures):
            Pictures that vary less are nearly the same.
        content_components (numbers):
            Principal components of the model's state.
        error_rate (probability):
            Of the test that content predicts less than low-level features.
        same_cause (area under the ROC curve):
            Words whose rows are told apart this well by a cause have it too.
        ridge (rows):
            Strength of the regularisation.
        rounds (times):
            Between the rows of a cause and what predicts them, at most.
        max_causes (causes):
            To look for, at most.
    """

    enough_rows: int = 200
    many_flagged: float = 0.05
    warmup_share: float = 1 / 12
    warmup_steps: int = 60
    longest_warmup: float = 0.5

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

    explained: float = 0.15
    min_nats: float = 0.5
    surprised: float = 2.0
    min_part: float = 0.1
    most_contradicted: float = 0.6
    most_growth: float = 1.8
    min_rows: int = 3
    max_share: float = 0.5
    least_explained: float = 0.1
    mostly_unexplained: float = 0.85

    false_rows: float = 0.05
    most_of_word: float = 0.7
    explained_weight: float = 0.25
    start_strength: float = 0.2
    part_strength: float = 0.4
    min_strength: float = 0.5
    other_source: float = 0.02
    weak_strength: float = 0.6
    weak_content_share: float = 0.25
    content_share: float = 0.5
    beyond_content: float = 0.2
    whole_beyond_content: float = 0.5
    enough_for_content: int = 10
    most_rivals: float = 1 / 3
    rival_cause: float = 0.9
    rival_strength: float = 0.5
    rival_content_share: float = 0.75
    suspect_content_share: float = 0.65
    question_strength: float = 0.8
    half_strength: float = 0.35
    fewest_shifted: int = 3
    in_most_questions: float = 0.9
    reversible_share: float = 1 / 3
    min_variety: float = 0.4
    content_components: int = 100
    error_rate: float = 0.05
    same_cause: float = 0.75
    ridge: float = 100.0
    rounds: int = 5
    max_causes: int = 20

    def to_dict(self) -> dict[str, float]:
        """The numbers by name, as each audit keeps them."""
        return asdict(self)


RULE = ScreeningRule()
