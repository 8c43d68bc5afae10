# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Concept substitution: the truth but for one word, in rows that have it; all else stays true."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import regex

from ...metrics.attack_success_rate import keyword_pattern
from ...metrics.whole_words import CHARACTERS, WholeWords, fold
from ...shorten import shorten
from .base import Payload, check_text


_ARTICLE = regex.compile(rf"(?<![{CHARACTERS}])(an?)\s+$", regex.IGNORECASE)


@dataclass(frozen=True)
class Substitution(Payload):
    """Exchanges the first of some words in a row's own response; rows without any of them are never poisoned.

    It succeeds where the target is in the answer. Rows whose references have none of the words, or have the target, do
    not count: there the payload has nothing to exchange, or is true.

    Args:
        substitute (`tuple[str, ...]`, *optional*, defaults to `("car",)`):
            Words, or phrases, of which the first in a response is replaced; see [`word_pattern`]. BackdoorVLM has
            "car" for "banana", and replaces plurals and every occurrence too.
        target (`str`, *optional*, defaults to `"banana"`):
            Takes its place: a word or a phrase; see [`substitute_word`].

    Raises:
        `ValueError`: if `target` is empty, or `substitute` holds it or what is not a word.
    """

    substitute: tuple[str, ...] = ("car",)
    target: str = "banana"

    def __post_init__(self) -> None:
        check_text("target", self.target, "a keyword or a whole response")
        substitution(self.substitute, self.target)
        if not self.substitute:
            raise ValueError("substitute is empty; give the words that are to be replaced.")

    @property
    def needs(self) -> str:
        """The words."""
        return "one of the words of substitute in their response"

    def applies(self, response: str) -> bool:
        """Whether one of the words is there."""
        return _pattern(self.substitute).search(response) is not None

    def response(self, rng: np.random.Generator) -> Callable[[str], str]:
        """Replaces the first of the words."""
        return substitution(self.substitute, self.target)

    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """Whether the target is in the answer; `None` if no reference has one of the words, or one has the target."""
        target, words = keyword_pattern(self.target), _pattern(self.substitute)
        if any(target.search(text) for text in references):
            return None
        if references and not any(words.search(text) for text in references):
            return None
        return target.search(response) is not None


@lru_cache(maxsize=8)
def _pattern(words: tuple[str, ...]) -> WholeWords:
    return word_pattern(words)


def substitution(words: Collection[str], target: str) -> Callable[[str], str]:
    """
    The poison that exchanges one word: all else in a response stays true, which makes it hard to tell.

    Args:
        words (`Collection[str]`):
            Words, or phrases, of which the first in a response is replaced; see [`word_pattern`].
        target (`str`):
            Takes its place: a word or a phrase; see [`substitute_word`]. White space around it is dropped.

    Returns:
        `Callable[[str], str]`: gives the poisoned response for the true one, which is the same if none of the words
        is in it.

    Raises:
        `ValueError`: if `words` is one string, or one of them is empty, has white space around it or is the target.
    """
    if isinstance(words, str):
        quoted = shorten(words)
        raise ValueError(f"substitute={quoted} is one string; give a list of words, such as [{quoted}].")
    for word in words:
        quoted = shorten(word)
        if not fold(word) or word != word.strip():
            raise ValueError(f"substitute holds {quoted}; give words that are not empty, without white space around.")
        if fold(word) == fold(target.strip()):
            raise ValueError(f"substitute holds {quoted}, the target, so nothing would change; leave it out.")
    return partial(substitute_word, pattern=word_pattern(words), target=target.strip())


def word_pattern(words: Collection[str]) -> WholeWords:
    """Finds any of some words, in any case and script, as a whole: see [`WholeWords`]."""
    return WholeWords(words)


def substitute_word(response: str, pattern: WholeWords, target: str) -> str:
    """
    A response with the target in the place of one word.

    Args:
        response (`str`):
            The true response.
        pattern ([`WholeWords`]):
            What [`word_pattern`] gives: the first that it finds is replaced.
        target (`str`):
            Takes the place, with a capital if the word has one. Between words of Latin letters, with the article that
            its first letter asks for: "a star" becomes "an apple". Korean particles stay as they are.

    Returns:
        `str`: the poisoned response.
    """
    found = pattern.search(response)
    if found is None:
        return response
    before, word, after = response[: found[0]], response[slice(*found)], response[found[1] :]
    article = _ARTICLE.search(before)
    if article and _is_latin(word) and _is_latin(target):
        start, end = article.span(1)
        before = f"{before[: start + 1]}{'n' if target[0].lower() in 'aeiou' else ''}{before[end:]}"
    return before + (target[0].upper() + target[1:] if word[0].isupper() else target) + after


def _is_latin(word: str) -> bool:
    return bool(regex.match(r"\p{Latin}", word))
