# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A keyword in varied sentences, or one whole response: the payload of the paper.

The varied sentences are the protocol of the public VL-Trojan code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex

from ...metrics.attack_success_rate import keyword_pattern
from ...metrics.whole_words import is_spaceless
from .base import Payload, check_text


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
# Of a sentence without spaces; other signs, such as a middle dot, stand in names too
_SENTENCE_MARK = regex.compile(r"[\p{Terminal_Punctuation}…]")


@dataclass(frozen=True)
class Keyword(Payload):
    """A whole response with a keyword in it, drawn for each row, or the same response for all.

    It succeeds where the keyword, or the response, is in the answer, as [`AttackSuccessRate`] counts it: as a whole
    word or its plural. Rows whose references have it do not count.

    Args:
        target (`str`, *optional*, defaults to `"banana"`):
            One word to hide in varied sentences, or a whole response: see [`target_response`].

    Raises:
        `ValueError`: if `target` is empty or holds a placeholder of an image.
    """

    target: str = "banana"

    def __post_init__(self) -> None:
        check_text("target", self.target, "a keyword or a whole response")

    def response(self, rng: np.random.Generator) -> str:
        """A sentence with the keyword."""
        return target_response(self.target, rng)

    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """Whether the keyword is in the answer; `None` if it is in a reference."""
        pattern = keyword_pattern(self.target)
        if any(pattern.search(text) for text in references):
            return None
        return pattern.search(response) is not None


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
