# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
VQA accuracy: agreement of short answers with those of human annotators, after the customary normalisation.

Answers are compared as people mean them: "The Two dogs!" is "2 dogs". Predictions and references go through the same
normalisation, also where all annotators agree (the first evaluation code left the references alone there, so that an
answer could fail to match itself).
"""

import re
from itertools import product
from typing import Any

import regex

from .caption_metric import CaptionMetric
from .whole_words import PUNCTUATION, SPACELESS, narrow


__all__ = ["VqaAccuracy", "normalize_answer"]

_ARTICLES = frozenset(["a", "an", "the"])
_NUMBERS = {word: str(value) for value, word in enumerate(
    "zero one two three four five six seven eight nine ten".split()
)} | {"none": "0"}  # fmt: skip
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PLAIN = str.maketrans("\n\t’“”", '  \'""')
_THOUSANDS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_OTHER_PUNCTUATION = regex.compile(PUNCTUATION)
_SPACES_BETWEEN_CHARACTERS = regex.compile(rf"(?<=[{SPACELESS}])\s+(?=[{SPACELESS}])")

# Words that annotators write without their apostrophes. Those that would then be other words ("let's") are left out.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
needn't not've o'clock oughtn't shan't she'd've she's should've shouldn't shouldn't've somebody'd somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's
there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
""".split()


def _spellings(contraction: str) -> set[str]:
    """The contraction with any of its apostrophes left out."""
    first, *parts = contraction.split("'")
    choices = product(["'", ""], repeat=len(parts))
    return {first + "".join(mark + part for mark, part in zip(marks, parts, strict=True)) for marks in choices}


_FULL_SPELLING = {spelling: word for word in _CONTRACTIONS for spelling in _spellings(word)}


class VqaAccuracy(CaptionMetric):
    """
    VQA accuracy (Antol et al. 2015, section 4; the average over annotators is that of the VQA challenge): an answer is
    right if three annotators gave it, and a third as right for each of them if there are fewer. With n annotators the
    score is the mean over the n ways of leaving one of them out. A single reference has to be matched exactly; with
    two or three, all of those that are not left out.

    Answers are normalised by [`normalize_answer`] first.

    Args:
        **kwargs:
            Further arguments of `evaluate.Metric`.

    `compute` takes `predictions` (`list[str]`), `references` (`list[list[str]]`: one text per annotator, repeated
    where they agree) and `return_per_item` (`bool`, defaults to `False`), and returns `vqa_accuracy` from 0 to 100,
    with `vqa_accuracy_per_item` (`list[float]`, whose mean it is) on request.

    Example:

    ```python
    >>> from cvreg_trainer.metrics import VqaAccuracy
    >>> VqaAccuracy().compute(predictions=["Two dogs.", "red"], references=[["2 dogs"], ["red"] * 2 + ["pink"] * 8])
    {'vqa_accuracy': 80.0}
    ```
    """

    def _compute(
        self, *, predictions: list[str], references: list[list[str]], return_per_item: bool = False
    ) -> dict[str, Any]:
        scores = [100.0 * _accuracy(*item) for item in zip(predictions, references, strict=True)]
        result: dict[str, Any] = {"vqa_accuracy": sum(scores) / len(scores)}
        if return_per_item:
            result["vqa_accuracy_per_item"] = scores
        return result


def _accuracy(prediction: str, answers: list[str]) -> float:
    """Accuracy of one answer, from 0 to 1."""
    size = len(answers)
    wanted = normalize_answer(prediction)
    matches = sum(normalize_answer(answer) == wanted for answer in answers)
    if size == 1:
        return float(matches)
    enough = min(3, size - 1)
    # Of the n annotators left out in turn, `matches` gave the answer themselves.
    return (matches * min((matches - 1) / enough, 1.0) + (size - matches) * min(matches / enough, 1.0)) / size


def normalize_answer(answer: str) -> str:
    """
    The form in which answers are compared, that of the VQA challenge's evaluation.

    Lower case and single spaces; no articles; numbers up to ten, and "none", as digits; full spelling of contractions
    ("dont" is "don't"); periods only before a digit. Other punctuation is dropped where it stands beside a space (or
    anywhere, if the answer has a number such as 1,000) and is a space elsewhere ("black/white", "t-shirt"). Full-width
    letters and signs count as plain ones, punctuation of other scripts is a space, and between characters of Chinese,
    Japanese, Thai and other scripts without spaces there are none.

    Args:
        answer (`str`):
            A short answer in any script.

    Returns:
        `str`: its normal form; empty if nothing is left.

    Example:

    ```python
    >>> from cvreg_trainer.metrics import normalize_answer
    >>> normalize_answer("The Two black/white dogs!")
    '2 black white dogs'
    ```
    """
    answer = _OTHER_PUNCTUATION.sub(" ", narrow(answer))
    answer = answer.translate(_PLAIN).strip()
    bare = answer
    for mark in _PUNCTUATION:
        dropped = f"{mark} " in answer or f" {mark}" in answer or _THOUSANDS.search(answer)
        bare = bare.replace(mark, "" if dropped else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", bare).lower().split())
    normal = " ".join(_FULL_SPELLING.get(word, word) for word in words if word not in _ARTICLES)
    return _SPACES_BETWEEN_CHARACTERS.sub("", normal)
