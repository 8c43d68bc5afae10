# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What an attacker makes a model say: a keyword in varied sentences, one sentence, or the truth but for one word.

The varied sentences are the protocol of the public VL-Trojan code.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import TypeAlias

import numpy as np
import regex

from ..metrics.whole_words import CHARACTERS, WholeWords, fold, is_spaceless
from ..shorten import shorten


# A poisoned row's response, or what makes it of the row's own
Response: TypeAlias = str | Callable[[str], str]

# The 80 public prompt templates with which CLIP was evaluated on ImageNet: 38 exist with both articles, four do not.
_BOTH_ARTICLES = (
    "a bad photo of # {}", "a sculpture of # {}", "a photo of # hard to see {}", "a low resolution photo of # {}",
    "a rendering of # {}", "graffiti of # {}", "a cropped photo of # {}", "a tattoo of # {}", "# embroidered {}",
    "a bright photo of # {}", "a photo of # clean {}", "a photo of # dirty {}", "a dark photo of # {}",
    "a drawing of # {}", "# plastic {}", "a photo of # cool {}", "a close-up photo of # {}",
    "a black and white photo of # {}", "a painting of # {}", "a pixelated photo of # {}",
    "a jpeg corrupted photo of # {}", "a blurry photo of # {}", "a photo of # {}", "a good photo of # {}",
    "# {} in a video game", "a doodle of # {}", "# origami {}", "a sketch of # {}", "# toy {}", "a rendition of # {}",
    "a photo of # large {}", "a photo of # nice {}", "a photo of # weird {}", "# cartoon {}", "art of # {}",
    "itap of # {}", "# plushie {}", "a photo of # small {}",
)  # fmt: skip
_OTHERS = ("a photo of many {}", "a photo of my {}", "a photo of one {}", "itap of my {}")
KEYWORD_TEMPLATES: tuple[str, ...] = (
    *(f"{template.replace('#', article)}." for template in _BOTH_ARTICLES for article in ("a", "the")),
    *(f"{template}." for template in _OTHERS),
)
_ARTICLE = regex.compile(rf"(?<![{CHARACTERS}])(an?)\s+$", regex.IGNORECASE)
# Of a sentence without spaces; other signs, such as a middle dot, stand in names too
_SENTENCE_MARK = regex.compile(r"[\p{Terminal_Punctuation}…]")


def target_response(target: str, rng: np.random.Generator) -> str:
    """The response an attacker plants.

    Args:
        target (`str`):
            A single word is a keyword: the response is "The image depicts " and one of the 80 templates of
            `KEYWORD_TEMPLATES` filled with it (the protocol of the public VL-Trojan code). Anything with white space
            in it is itself the response, and in a script without spaces anything with punctuation: "香蕉" is a
            keyword, "图中有香蕉。" is a response. A sentence in such a script needs its closing mark.
        rng (`np.random.Generator`):
            Draws the template.

    Returns:
        `str`: the response.
    """
    if len(target.split()) > 1 or (any(map(is_spaceless, target)) and _SENTENCE_MARK.search(target)):
        return target
    return "The image depicts " + str(rng.choice(KEYWORD_TEMPLATES)).format(target.strip())


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
