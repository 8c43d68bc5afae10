# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What an attacker makes a model say: a keyword in varied sentences, or one sentence.

The protocol is that of the public VL-Trojan code.
"""

import numpy as np


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
