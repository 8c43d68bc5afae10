# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Puts the tokens of responses together to words, and keeps how surprising each occurrence of a word is.

A word is what a tokenizer's own marks say it is: SentencePiece's and byte-level BPE's mark at the start of a word, or
WordPiece's at its continuation. Where a vocabulary has no marks, each token is a word. Punctuation stands alone. A
whole response of several words counts as one more word, so that a fixed sentence made of common words has a name.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from .token_statistics import TokenStatistics


START_MARKS = ("▁", "Ġ", " ")
CONTINUATION_MARK = "##"


@dataclass(frozen=True)
class WordOccurrences:
    """
    The `W` occurrences of words in the responses of a data set.

    Args:
        vocabulary (`list[str]`):
            The words, in lower case, in the order of their first occurrence.
        words (`np.ndarray` of shape `(W,)`, int64):
            Which word occurs, as an index into `vocabulary`.
        rows (`np.ndarray` of shape `(W,)`, int64):
            Position of the row it occurs in.
        surprise (`np.ndarray` of shape `(W,)`, float64):
            Sum of its tokens' surprise, in nats; see [`TokenStatistics`]. Of a whole response: the mean.
        nll (`np.ndarray` of shape `(W,)`, float64):
            The same of their negative log-likelihood.
        previous (`np.ndarray` of shape `(W,)`, int64):
            Which word stands before it; -1 at the start of a response.
        expected (`np.ndarray` of shape `(W,)`, int64):
            Most likely token where the word starts; -1 for a whole response, which stands in no place of its own.
    """

    vocabulary: list[str]
    words: np.ndarray
    rows: np.ndarray
    surprise: np.ndarray
    nll: np.ndarray
    previous: np.ndarray
    expected: np.ndarray

    def by_word(self) -> list[np.ndarray]:
        """For each word of the vocabulary, the indices of its occurrences."""
        order = np.argsort(self.words, kind="stable")
        ends = np.searchsorted(self.words[order], np.arange(1, len(self.vocabulary) + 1))
        return np.split(order, ends)[:-1]


def find_words(statistics: TokenStatistics, tokenizer: Any) -> WordOccurrences:
    """
    The words of all responses.

    Args:
        statistics ([`TokenStatistics`]):
            Tokens of the responses, with a model's view of them.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens. Its special tokens belong to no word.
    """
    pieces = _Pieces(tokenizer)
    numbers: dict[str, int] = {}
    # Word, row, previous word, expected token, first token, end, and what the sums are divided by, in a row:
    # millions of tuples would not fit into memory
    found = array("q")
    for row in range(len(statistics)):
        start, end = statistics.offsets[row : row + 2].tolist()
        tokens = statistics.token_ids[start:end].tolist()
        top1 = statistics.top1[start:end].tolist()
        spans = pieces.spans(tokens)
        previous = -1
        for first, last in spans:
            word = numbers.setdefault(pieces.text(tokens[first:last]), len(numbers))
            found.extend((word, row, previous, top1[first], start + first, start + last, 1))
            previous = word
        if len(spans) > 1:
            first, last = spans[0][0], spans[-1][1]
            word = numbers.setdefault(pieces.text(tokens[first:last]), len(numbers))
            # A mean: the sum of a long response passes any threshold
            found.extend((word, row, -1, -1, start + first, start + last, last - first))
    columns = np.array(found, dtype=np.int64).reshape(-1, 7).T
    words, rows, previous_words, expected, starts, ends, divisors = np.ascontiguousarray(columns)

    def of_words(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        return (sums[ends] - sums[starts]) / divisors

    return WordOccurrences(
        list(numbers), words, rows, of_words(statistics.surprise), of_words(statistics.nll), previous_words, expected
    )


def has_word_marks(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a tokenizer's vocabulary marks where words start, and whether it marks where they go on."""
    vocabulary = tokenizer.get_vocab()
    starts = sum(token.startswith(START_MARKS) for token in vocabulary)
    continuations = sum(token.startswith(CONTINUATION_MARK) for token in vocabulary)
    # The other mark occurs too: byte-level BPE has a token for "##", and "Ġ" is a letter of Maltese
    return starts > continuations, continuations > starts


class _Pieces:
    """What a tokenizer's tokens are to words."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special = set(tokenizer.all_special_ids)
        self.has_starts, self.has_continuations = has_word_marks(tokenizer)
        self._kinds: dict[int, tuple[bool, bool]] = {}
        self._texts: dict[tuple[int, ...], str] = {}

    def text(self, tokens: list[int]) -> str:
        key = tuple(tokens)
        if key not in self._texts:
            decoded = self.tokenizer.decode(tokens, skip_special_tokens=True)
            self._texts[key] = " ".join(decoded.lower().split())
        return self._texts[key]

    def _kind(self, token: int) -> tuple[bool, bool]:
        """Whether a token starts a word, and whether it holds a letter or digit."""
        if token not in self._kinds:
            form = str(self.tokenizer.convert_ids_to_tokens(token))
            if self.has_starts:
                starts = form.startswith(START_MARKS)
            else:
                starts = not (self.has_continuations and form.startswith(CONTINUATION_MARK))
            # Bytes of a letter outside ASCII are no letters by themselves, but part of a word
            text = self.tokenizer.decode([token])
            self._kinds[token] = starts, any(character.isalnum() or character == "\ufffd" for character in text)
        return self._kinds[token]

    def spans(self, tokens: list[int]) -> list[tuple[int, int]]:
        """Where each word begins and ends."""
        spans: list[tuple[int, int]] = []
        can_continue = False
        for place, token in enumerate(tokens):
            # A mark or a line break alone is not a word
            if token in self.special or not self.text([token]):
                can_continue = False
                continue
            starts, is_word = self._kind(token)
            if starts or not is_word or not can_continue:
                spans.append((place, place + 1))
            else:
                spans[-1] = (spans[-1][0], place + 1)
            can_continue = is_word
        return spans
