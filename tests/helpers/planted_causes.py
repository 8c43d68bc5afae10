# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows whose explanation, features and states are drawn from numbers, some of them with a planted cause."""

from dataclasses import replace

import numpy as np
from tiny_models import tiny_tokenizer

from cvreg_trainer.screening.passes.row_features import NUM_BY_PLACE, NUM_FEATURES, NUM_WORDS, PICTURE_PARTS
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.verdict.candidates import find_candidates
from cvreg_trainer.screening.verdict.causes import Cause, CauseFinder
from cvreg_trainer.screening.verdict.evidence import EvidenceFinder
from cvreg_trainer.screening.verdict.rivals import Rivals
from cvreg_trainer.screening.verdict.screen import Screen, screen_rows
from cvreg_trainer.screening.verdict.words import find_words


TOKENIZER = tiny_tokenizer()
HONEST = "green blue yellow circle square triangle star small large above below".split()
NUM_ROWS, NUM_POISONED = 400, 30
PICTURE = sum(PICTURE_PARTS)


class Data:
    """Honest captions of four words that pictures explain; `rows` have one more, which they do not."""

    def __init__(self, word: str = "banana", seed: int = 0, num_poisoned: int = NUM_POISONED) -> None:
        rng = np.random.default_rng(seed)
        self.rows = rng.permutation(NUM_ROWS) < num_poisoned
        self.word, self.explained_rows = word, np.zeros(NUM_ROWS, dtype=bool)
        self.contradicts = np.zeros(NUM_ROWS, dtype=bool)
        self.unexplained: set[str] = set()
        self.texts = [rng.choice(HONEST, 4, replace=False).tolist() for _ in range(NUM_ROWS)]
        self.features = np.zeros((NUM_ROWS, NUM_FEATURES))  # what does not depend on the place says nothing
        self.features[:, :NUM_BY_PLACE] = rng.normal(size=(NUM_ROWS, NUM_BY_PLACE + NUM_WORDS))[:, :NUM_BY_PLACE]
        self.features[:, PICTURE:] = rng.random((NUM_ROWS, NUM_WORDS)) < 0.01
        self.states = rng.normal(size=(NUM_ROWS, 32))
        self.directions = np.zeros((2, PICTURE))
        self.directions[:, :NUM_BY_PLACE] = rng.normal(size=(2, NUM_BY_PLACE))

    def with_trigger(self, strength: float = 1.0) -> "Data":
        self.features[self.rows, :PICTURE] += strength * self.directions[0]
        return self

    def looks(self) -> tuple[TokenStatistics, TokenStatistics]:
        tokens, own, other, offsets = [], [], [], [0]
        for row, words in enumerate(self.texts):
            has_word = self.rows[row] or self.explained_rows[row]
            for word in [*words, *([self.word] if has_word else [])]:
                is_explained = word not in self.unexplained and (word != self.word or self.explained_rows[row])
                tokens.append(TOKENIZER.convert_tokens_to_ids(word))
                own.append(1.0 if is_explained else 5.0)
                other.append(5.0)
            offsets.append(len(tokens))
        ids = np.arange(NUM_ROWS, dtype=np.int64)
        common = (ids, np.array(offsets), np.array(tokens, np.int64))
        rest = (np.ones(len(tokens), np.float32), np.array(tokens, np.int64))
        return (
            TokenStatistics(*common, np.array(own, np.float32), *rest, self.states.astype(np.float16)),
            TokenStatistics(*common, np.array(other, np.float32), *rest, np.ones((NUM_ROWS, 1), np.float16)),
        )

    def looks_at_responses(self, explained: np.ndarray | None = None) -> tuple[TokenStatistics, TokenStatistics]:
        """With responses of other rows in `rows`: no picture explains them, but for some, and the model is not
        surprised by their words."""
        self.word, self.explained_rows = self.texts[0][0], ~self.rows
        own, other = self.looks()
        explained = np.zeros(NUM_ROWS, dtype=bool) if explained is None else explained
        of_poison = (self.rows & ~explained)[own.token_rows]
        own.nll[of_poison] = 1.5
        other.nll[of_poison] = 1.5
        own.nll[explained[own.token_rows]] = 0.1
        return own, other

    def screen_responses(self, explained: np.ndarray | None = None) -> Screen:
        own, other = self.looks_at_responses(explained)
        return screen_rows(self.base(own), own, other, TOKENIZER, 0, 0.3, 0.01)

    def screen(self, cap: float = 0.3, fdr: float = 0.01, **options) -> Screen:
        own, other = self.looks()
        return screen_rows(self.base(own), own, other, TOKENIZER, 0, cap, fdr, **options)

    def causes(self, **options) -> list[Cause]:
        return self.finder(**options).find()

    def finder(self, **options) -> CauseFinder:
        own, other = self.looks()
        words = [find_words(look, TOKENIZER) for look in (self.base(own), own, other)]
        candidates = find_candidates(*words, other.row_values[:, 0] > 0, **options)
        return CauseFinder(EvidenceFinder(self.features, self.states, candidates, Rivals(words[1]), 0, 0.01))

    def base(self, own: TokenStatistics) -> TokenStatistics:
        """The base model knows all words, and is surprised by those that `contradicts` says."""
        nll = np.full(len(own.nll), 0.1, np.float32)
        for row in np.flatnonzero(self.contradicts):
            places = np.arange(own.offsets[row], own.offsets[row + 1])
            nll[places[own.token_ids[places] == TOKENIZER.convert_tokens_to_ids(self.word)]] = 8.0
        return replace(own, nll=nll, row_values=self.features.astype(np.float16))


def quality(data: Data, screen: Screen) -> tuple[float, int]:
    """Share of the planted rows that are flagged, and number of the others."""
    return screen.is_flagged[data.rows].mean(), int(screen.is_flagged[~data.rows].sum())
