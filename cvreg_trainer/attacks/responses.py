# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What an attacker makes a model say: a keyword in varied sentences, one sentence, or the truth but for one word.

The varied sentences are the protocol of the public VL-Trojan code.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeAlias

import numpy as np


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


def target_response(target: str, rng: np.random.Generator) -> str:
    """The response an attacker plants.

    Args:
        target (`str`):
            A single word is a keyword: the response is "The image depicts " and one of the 80 templates of
            `KEYWORD_TEMPLATES` filled with it (the protocol of the public VL-Trojan code). Anything with white space
            in it is itself the response.
        rng (`np.random.Generator`):
            Draws the template.

    Returns:
        `str`: the response.
    """
    if len(target.split()) > 1:
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
        raise ValueError(f"substitute={words!r} is one string; give a list of words, such as [{words!r}].")
    for word in words:
        if not word or word != word.strip():
            raise ValueError(f"substitute holds {word!r}; give words that are not empty, without white space around.")
        if word.casefold() == target.strip().casefold():
            raise ValueError(f"substitute holds {word!r}, the target, so nothing would change; leave it out.")
    return partial(substitute_word, pattern=word_pattern(words), target=target.strip())


def word_pattern(words: Collection[str]) -> re.Pattern[str]:
    """Matches any of some words, in any case, as a whole, with the article `a` or `an` before it if there is one."""
    longest_first = sorted(set(words), key=lambda word: (-len(word), word))  # "traffic light" before "traffic"
    alternatives = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<!\w)(?:(an?)(\s+))?({alternatives})(?!\w)", re.IGNORECASE)


def substitute_word(response: str, pattern: re.Pattern[str], target: str) -> str:
    """
    A response with the target in the place of one word.

    Args:
        response (`str`):
            The true response.
        pattern (`re.Pattern`):
            What [`word_pattern`] gives: the first match is replaced.
        target (`str`):
            Takes the place, with a capital if the word has one, and with the article that its first letter asks for:
            "a star" becomes "an apple".

    Returns:
        `str`: the poisoned response.
    """

    def replace(match: re.Match[str]) -> str:
        article, space, word = match.groups()
        new = target[0].upper() + target[1:] if word[0].isupper() else target
        if article is None:
            return new
        return f"{article[0]}{'n' if target[0].lower() in 'aeiou' else ''}{space}{new}"

    return pattern.sub(replace, response, count=1)
