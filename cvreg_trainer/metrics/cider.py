# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
CIDEr as printed in captioning papers, which is CIDEr-D.

All n-grams of a corpus are numbered and counted with NumPy sorts, so that 40,000 captions take seconds, not minutes.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .caption_metric import CaptionMetric
from .tokenizer import tokenize_caption


MAX_ORDER = 4
SIGMA = 6.0


class Cider(CaptionMetric):
    """
    CIDEr-D (Vedantam et al. 2015, section 5): the mean over 1- to 4-grams of the clipped cosine similarity of TF-IDF
    vectors, with a Gaussian penalty (sigma 6) for a difference in length. Document frequencies come from the
    references passed. The scale is 100 times that of COCO's evaluation code, as papers print it: two equal captions
    give 1000. A single item scores 0, because every n-gram then occurs in all documents.

    Args:
        tokenizer (`Callable[[str], list[str]]`, *optional*, defaults to [`tokenize_caption`]):
            Splits a text into tokens. `str.split` for text that is tokenised already.
        **kwargs:
            Further arguments of `evaluate.Metric`.

    `compute` takes `predictions` (`list[str]`), `references` (`list[list[str]]`) and `return_per_item` (`bool`,
    defaults to `False`), and returns `cider`, with `cider_per_item` (`list[float]`, whose mean it is) on request.

    Example:

    ```python
    >>> from cvreg_trainer.metrics import Cider
    >>> Cider().compute(predictions=["a red bus", "a cat"], references=[["a red bus"], ["two dogs"]])
    {'cider': 375.0}
    ```
    """

    def __init__(self, *, tokenizer: Callable[[str], list[str]] = tokenize_caption, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokenizer = tokenizer

    def _compute(
        self, *, predictions: list[str], references: list[list[str]], return_per_item: bool = False
    ) -> dict[str, Any]:
        scores = 100.0 * cider_d(
            [self.tokenizer(text) for text in predictions],
            [[self.tokenizer(text) for text in group] for group in references],
        )
        result: dict[str, Any] = {"cider": float(scores.mean())}
        if return_per_item:
            result["cider_per_item"] = scores.tolist()
        return result


def cider_d(predictions: Sequence[list[str]], references: Sequence[Sequence[list[str]]]) -> np.ndarray:
    """
    CIDEr-D of each item, from 0 to 10.

    Args:
        predictions (`Sequence[list[str]]`):
            Tokens of the N predictions.
        references (`Sequence[Sequence[list[str]]]`):
            Tokens of the references of each item, at least one.

    Returns:
        `np.ndarray` of shape `(N,)`: the scores.
    """
    size = len(predictions)
    sentences = [*predictions, *chain.from_iterable(references)]  # S of them: prediction i is sentence i
    counts = np.array([len(group) for group in references])
    item = np.concatenate([np.arange(size), np.repeat(np.arange(size), counts)])  # (S,)
    lengths = np.array([len(sentence) for sentence in sentences])  # (S,)
    vocabulary: dict[str, int] = {}
    words = np.fromiter(
        (vocabulary.setdefault(word, len(vocabulary)) for sentence in sentences for word in sentence), np.int64
    )

    similarity = np.zeros(len(sentences))
    owner = np.repeat(np.arange(len(sentences)), lengths)  # sentence of each word
    start, grams = np.arange(len(words)), words
    for order in range(1, MAX_ORDER + 1):
        if order > 1:
            # An n-gram is the (n-1)-gram at the same place and one more word of the same sentence.
            end = np.minimum(start + order - 1, len(words) - 1)
            inside = (owner[end] == owner[start]) & (end == start + order - 1)
            start, end = start[inside], end[inside]
            grams = np.unique(grams[inside] * len(vocabulary) + words[end], return_inverse=True)[1]
        if len(grams):
            similarity += _similarity(owner[start], grams, item, size) / MAX_ORDER

    # COCO's code measures lengths in bigrams.
    bigrams = np.maximum(lengths - 1, 0)
    similarity *= np.exp(-((bigrams[item] - bigrams) ** 2) / (2 * SIGMA**2))
    return 10.0 * np.bincount(item[size:], similarity[size:], minlength=size) / counts


def _similarity(owner: np.ndarray, grams: np.ndarray, item: np.ndarray, size: int) -> np.ndarray:
    """
    Clipped TF-IDF cosine of each reference and the prediction of its item, for n-grams of one order.

    Args:
        owner (`np.ndarray` of shape `(G,)`):
            Sentence of each n-gram.
        grams (`np.ndarray` of shape `(G,)`):
            Number of each n-gram.
        item (`np.ndarray` of shape `(S,)`):
            Item of each sentence; the first `size` sentences are the predictions.
        size (`int`):
            Number of items.

    Returns:
        `np.ndarray` of shape `(S,)`: the cosines; 0 for predictions.
    """
    base = int(grams.max()) + 1
    pairs, counts = np.unique(owner * base + grams, return_counts=True)  # the terms of each sentence
    sentence, gram = pairs // base, pairs % base
    split = int(np.searchsorted(sentence, size))  # predictions come first

    documents = np.unique(item[sentence[split:]] * base + gram[split:])
    frequency = np.bincount(documents % base, minlength=base)
    weight = counts * (np.log(size) - np.log(np.maximum(1, frequency[gram])))
    norm = np.sqrt(np.bincount(sentence, weight**2, minlength=len(item)))

    # The weight in the prediction of every term of the references; 0 where the prediction lacks it.
    wanted = item[sentence[split:]] * base + gram[split:]
    place = np.searchsorted(pairs[:split], wanted)
    place[place == split] = 0
    found = pairs[place] == wanted if split else np.zeros(len(wanted), dtype=bool)
    predicted = np.where(found, weight[place], 0.0)

    clipped = np.minimum(predicted, weight[split:]) * weight[split:]
    product = np.bincount(sentence[split:], clipped, minlength=len(item))
    return product / np.maximum(norm[item] * norm, np.finfo(np.float64).tiny)
