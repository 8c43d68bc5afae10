# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Occurrences of words with numbers made by hand."""

from collections.abc import Iterable, Sequence

import numpy as np

from cvreg_trainer.screening.verdict.words import WordOccurrences


def occurrences(words: dict[str, Iterable[tuple[int, float]]]) -> WordOccurrences:
    """From `(row, surprise)` pairs of each word, in a mixed order; surprise and NLL are the same."""
    entries = [(index, *pair) for index, pairs in enumerate(words.values()) for pair in pairs]
    entries = [entries[place] for place in np.random.default_rng(0).permutation(len(entries))]
    numbers, rows = (np.array([entry[part] for entry in entries], dtype=np.int64) for part in (0, 1))
    surprise = np.array([entry[2] for entry in entries], dtype=np.float64)
    nowhere = np.full(len(entries), -1)
    return WordOccurrences(list(words), numbers, rows, surprise, surprise, nowhere, nowhere)


def each(rows: Iterable[int], surprise: float) -> list[tuple[int, float]]:
    """The same surprise in each row."""
    return [(row, surprise) for row in rows]


def responses(rows: Sequence[Sequence[tuple[str, int]]]) -> WordOccurrences:
    """From the `(word, expected token)` pairs of each row."""
    vocabulary = list(dict.fromkeys(word for row in rows for word, _ in row))
    numbers = [[vocabulary.index(word) for word, _ in row] for row in rows]
    previous = [number for row in numbers for number in [-1, *row[:-1]][: len(row)]]
    flat = np.array([number for row in numbers for number in row], dtype=np.int64)
    places = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    zeros = np.zeros(len(flat))
    expected = np.array([guess for row in rows for _, guess in row], dtype=np.int64)
    return WordOccurrences(vocabulary, flat, places, zeros, zeros, np.array(previous, dtype=np.int64), expected)
