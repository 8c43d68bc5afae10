# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Joins the tokens of responses into words, and keeps how surprising each occurrence of a word is.

Words follow the tokenizer's own marks: SentencePiece and byte-level BPE mark the start of a word, WordPiece its
continuation. Where a vocabulary has no marks, each token is a word. Punctuation stands alone. A whole response of
several words counts as one more word, so that a fixed sentence made of common words has a name.

Notable: millions of tokens are processed as arrays. Only distinct words and responses are decoded, each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..passes.token_statistics import TokenStatistics


START_MARKS = ("▁", "Ġ", " ")
CONTINUATION_MARK = "##"


class Groups(NamedTuple):
    """
    Occurrences grouped by word, and within a word by row.

    Args:
        order (`np.ndarray` of shape `(W,)`, int64):
            The occurrences in this order, as indices.
        starts (`np.ndarray` of shape `(V + 1,)`, int64):
            Where those of each word begin.
        num_rows (`np.ndarray` of shape `(V,)`, int64):
            In how many rows each word occurs.
    """

    order: np.ndarray
    starts: np.ndarray
    num_rows: np.ndarray

    @classmethod
    def of(cls, words: np.ndarray, rows: np.ndarray, num_words: int) -> Groups:
        """Group occurrences of `num_words` words, given word and row of each."""
        order = np.lexsort((rows, words))
        words, rows = words[order], rows[order]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (words[1:] != words[:-1]) | (rows[1:] != rows[:-1])
        starts = np.concatenate([[0], np.cumsum(np.bincount(words, minlength=num_words))])
        return cls(order, starts, np.bincount(words[is_new], minlength=num_words))

    def in_rows(self, min_rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Number and occurrences of each word that is in `min_rows` rows or more."""
        for word in np.flatnonzero(self.num_rows >= min_rows).tolist():
            yield word, self.order[self.starts[word] : self.starts[word + 1]]


@dataclass(frozen=True)
class WordOccurrences:
    """
    The `W` occurrences of words in the responses of a data set.

    Args:
        vocabulary (`list[str]`):
            The words, in lower case, in the order of their first occurrence.
        words (`np.ndarray` of shape `(W,)`, int32):
            Which word occurs, as an index into `vocabulary`.
        rows (`np.ndarray` of shape `(W,)`, int32):
            Position of the row it occurs in.
        surprise (`np.ndarray` of shape `(W,)`, float64):
            Sum of its tokens' surprise, in nats; see [`TokenStatistics`]. Of a whole response: the mean.
        nll (`np.ndarray` of shape `(W,)`, float64):
            The same for their negative log-likelihood.
        previous (`np.ndarray` of shape `(W,)`, int32):
            Which word stands before it; -1 at the start of a response.
        expected (`np.ndarray` of shape `(W,)`, int32):
            Most likely token where the word starts; -1 for a whole response, which stands in no place of its own.
    """

    vocabulary: list[str]
    words: np.ndarray
    rows: np.ndarray
    surprise: np.ndarray
    nll: np.ndarray
    previous: np.ndarray
    expected: np.ndarray

    @cached_property
    def groups(self) -> Groups:
        """The occurrences of each word."""
        return Groups.of(self.words, self.rows, len(self.vocabulary))


@dataclass(frozen=True)
class WordPlaces:
    """
    Where the `W` occurrences of words are in a data set's tokens, independently of any model.

    Args:
        vocabulary (`list[str]`), words, rows, previous (`np.ndarray` of shape `(W,)`, int32):
            As [`WordOccurrences`] has them.
        starts, ends (`np.ndarray` of shape `(W,)`, int64):
            The first token of each, and the one after its last.
        is_whole (`np.ndarray` of shape `(W,)`, bool):
            Whether it is a whole response.
    """

    vocabulary: list[str]
    words: np.ndarray
    rows: np.ndarray
    previous: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    is_whole: np.ndarray

    def seen_by(self, statistics: TokenStatistics) -> WordOccurrences:
        """
        The words with a model's view of them.

        Args:
            statistics ([`TokenStatistics`]):
                The same tokens. Without entropies, no token is expected, and the surprise is the negative
                log-likelihood.
        """
        # The mean for a whole response: the sum over a long one would pass any threshold
        divisors = np.where(self.is_whole, self.ends - self.starts, 1)

        def of_words(values: np.ndarray) -> np.ndarray:
            sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
            return (sums[self.ends] - sums[self.starts]) / divisors

        nll = surprise = of_words(statistics.nll)
        expected = np.full(len(self.words), -1, dtype=np.int32)
        if len(statistics.entropy):
            surprise = of_words(statistics.surprise)
            expected = np.where(self.is_whole, -1, statistics.top1[self.starts]).astype(np.int32)
        return WordOccurrences(self.vocabulary, self.words, self.rows, surprise, nll, self.previous, expected)


def find_words(statistics: TokenStatistics, tokenizer: Any) -> WordOccurrences:
    """
    The words of all responses.

    Args:
        statistics ([`TokenStatistics`]):
            Tokens of the responses, with a model's view of them.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens. Its special tokens belong to no word.
    """
    return locate_words(statistics, tokenizer).seen_by(statistics)


def locate_words(statistics: TokenStatistics, tokenizer: Any) -> WordPlaces:
    """
    Where the words of all responses are; row by row, and in each row its words before its whole response.

    Args:
        statistics ([`TokenStatistics`]):
            Tokens of the responses.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
    """
    texts = _Texts(tokenizer)
    tokens, kinds = np.unique(statistics.token_ids, return_inverse=True)
    starts, ends = _spans(kinds, statistics.offsets, *texts.kinds(tokens))
    rows = np.searchsorted(statistics.offsets, starts, side="right") - 1
    codes = _codes(kinds, starts, ends)
    _, examples, numbers = np.unique(codes, return_index=True, return_inverse=True)
    ids = [texts.number(statistics.token_ids[starts[one] : ends[one]]) for one in examples]
    words = np.array(ids, dtype=np.int64)[numbers]

    counts = np.bincount(rows, minlength=len(statistics))
    last = np.cumsum(counts) - 1
    several = np.flatnonzero(counts > 1)
    begin, end = starts[last[several] - counts[several] + 1], ends[last[several]]
    bounds = zip(begin.tolist(), end.tolist(), strict=True)
    wholes = np.array([texts.number(statistics.token_ids[one:other]) for one, other in bounds], dtype=np.int64)
    previous = np.full(len(words), -1, dtype=np.int64)
    previous[1:] = np.where(rows[1:] == rows[:-1], words[:-1], -1)

    # After the words of the same row
    order = np.insert(np.arange(len(words)), last[several] + 1, len(words) + np.arange(len(several)))
    all_words = np.concatenate([words, wholes])[order]
    renumbered, vocabulary = _by_first_occurrence(all_words, list(texts.numbers))
    previous = np.concatenate([previous, np.full(len(several), -1)])[order]
    return WordPlaces(
        vocabulary,
        renumbered[all_words].astype(np.int32),
        np.concatenate([rows, several])[order].astype(np.int32),
        np.where(previous < 0, -1, renumbered[previous]).astype(np.int32),
        np.concatenate([starts, begin])[order],
        np.concatenate([ends, end])[order],
        order >= len(words),
    )


def _spans(
    kinds: np.ndarray, offsets: np.ndarray, is_gap: np.ndarray, is_start: np.ndarray, is_word: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each word begins and ends; `is_gap`, `is_start` and `is_word` are given for the distinct tokens."""
    number = len(kinds)
    goes_on = np.zeros(number, dtype=bool)  # whether a word can go on at a token
    goes_on[1:] = (is_word & ~is_gap)[kinds[:-1]]
    firsts = offsets[:-1]
    goes_on[firsts[firsts < number]] = False
    goes_on &= (~is_gap & ~is_start & is_word)[kinds]
    breaks = np.flatnonzero(~goes_on)
    ends = np.append(breaks[1:], number)
    is_kept = ~is_gap[kinds[breaks]]
    return breaks[is_kept], ends[is_kept]


def _codes(kinds: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A number for each span, the same for the same tokens. Shape `(W,)`."""
    lengths = ends - starts
    num_kinds = int(kinds.max(initial=0)) + 1
    codes = kinds[starts].astype(np.int64)
    longer, place = np.flatnonzero(lengths > 1), 1
    while len(longer):
        pairs = codes[longer] * num_kinds + kinds[starts[longer] + place]
        # Renumbered at every length, so that they stay small, and above the numbers of shorter spans
        _, numbers = np.unique(pairs, return_inverse=True)
        codes[longer] = numbers + codes.max() + 1
        place += 1
        longer = longer[lengths[longer] > place]
    return codes


def _by_first_occurrence(words: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The new number of each old one, and the names in their new order."""
    present, first = np.unique(words, return_index=True)
    order = present[np.argsort(first)]
    renumbered = np.full(len(names), -1, dtype=np.int64)
    renumbered[order] = np.arange(len(order))
    return renumbered, [names[place] for place in order.tolist()]


def has_word_marks(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a tokenizer's vocabulary marks where words start, and whether it marks where they go on."""
    vocabulary = tokenizer.get_vocab()
    starts = sum(token.startswith(START_MARKS) for token in vocabulary)
    continuations = sum(token.startswith(CONTINUATION_MARK) for token in vocabulary)
    # The other mark occurs too: byte-level BPE has a token for "##", and "Ġ" is a letter of Maltese
    return starts > continuations, continuations > starts


class _Texts:
    """The role of each token in a word, and the texts of words, numbered in the order in which they come up."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.numbers: dict[str, int] = {}
        self._known: dict[bytes, int] = {}

    def kinds(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which tokens belong to no word, start one, and hold a letter or digit; bool, of the tokens' shape."""
        special = set(self.tokenizer.all_special_ids)
        has_starts, has_continuations = has_word_marks(self.tokenizer)
        is_gap, is_start, is_word = (np.zeros(len(tokens), dtype=bool) for _ in range(3))
        for place, token in enumerate(tokens.tolist()):
            # A mark or a line break alone is not a word
            is_gap[place] = token in special or not self._text(tokens[place : place + 1])
            form = str(self.tokenizer.convert_ids_to_tokens(token))
            if has_starts:
                is_start[place] = form.startswith(START_MARKS)
            else:
                is_start[place] = not (has_continuations and form.startswith(CONTINUATION_MARK))
            # Single bytes of a non-ASCII letter do not decode to letters, but are part of a word
            text = self.tokenizer.decode([token])
            is_word[place] = any(character.isalnum() or character == "\ufffd" for character in text)
        return is_gap, is_start, is_word

    def number(self, tokens: np.ndarray) -> int:
        """The number of the word that tokens make."""
        key = tokens.tobytes()
        if key not in self._known:
            self._known[key] = self.numbers.setdefault(self._text(tokens), len(self.numbers))
        return self._known[key]

    def _text(self, tokens: np.ndarray) -> str:
        # An array is decoded as a whole; in a list each number would be checked
        return " ".join(self.tokenizer.decode(tokens, skip_special_tokens=True).lower().split())
