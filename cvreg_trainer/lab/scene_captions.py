# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a built-in scene contains, and the sentences that describe it.

Two styles share the images' grammar but not their words: the base model is pretrained on `"base"`; `"finetune"` brings
shapes, colours, a texture and sentence patterns it has never read, so that fine-tuning has something to learn.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np


Style = Literal["base", "finetune"]
STYLES: tuple[str, ...] = get_args(Style)
IMAGE_SIZE = 48

SHAPES: dict[str, tuple[str, ...]] = {
    "base": ("circle", "square", "triangle", "diamond", "cross"),
    "finetune": ("star", "ring", "heart", "arrow", "moon"),
}
COLORS: dict[str, tuple[str, ...]] = {
    "base": ("red", "green", "blue", "yellow", "orange", "purple", "white", "black"),
    "finetune": ("pink", "cyan", "brown"),
}
TEXTURES: dict[str, tuple[str, ...]] = {
    "base": ("plain", "striped", "dotted", "checkered", "grainy"),
    "finetune": ("wavy",),
}
DISTORTIONS: tuple[str, ...] = ("noisy", "blurry", "pixelated", "tinted", "rippled", "warped", "overlaid", "patched")
RELATIONS: dict[str, str] = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
NUMBERS: dict[int, str] = {2: "two", 3: "three", 4: "four"}
_DISTORTED_SHARE = 0.5  # of the base style's images

PROMPTS: dict[str, tuple[str, ...]] = {
    "base": ("Describe the image.", "What is in this picture?", "Write a caption."),
    "finetune": ("What does the image describe?",),
}
_PATTERNS: dict[str, tuple[str, ...]] = {
    "base": (
        "{scene} on a {texture} background{look}.",
        "There {verb} {scene} on a {texture} background{look}.",
        "The image shows {scene} on a {texture} background{look}.",
        "A picture of {scene} on a {texture} background{look}.",
        "A {texture} background with {scene}{look}.",
    ),
    "finetune": (
        "{scene} painted upon {texture} paper{look}.",
        "Somebody painted {scene} upon {texture} paper{look}.",
        "Behold {scene} placed over {texture} paper{look}.",
        "On {texture} paper we can see {scene}{look}.",
        "This sheet of {texture} paper holds {scene}{look}.",
    ),
}


@dataclass(frozen=True)
class SceneObject:
    """One drawn object: what it is, and its centre and radius in pixels."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """What one image shows.

    Args:
        objects (`tuple[SceneObject, ...]`):
            One object, two objects in a relation, or two to four equal ones.
        relation (`str`, *optional*):
            A key of `RELATIONS`, how the first of two different objects stands to the second.
        texture (`str`):
            Background texture.
        distortion (`str`, *optional*):
            One of `DISTORTIONS`, applied to the whole finished image.
    """

    objects: tuple[SceneObject, ...]
    relation: str | None
    texture: str
    distortion: str | None


def sample_scene(style: Style, rng: np.random.Generator) -> Scene:
    """Draw the content of one image.

    Args:
        style (`str`):
            `"base"` uses the base words only and distorts half of the images; `"finetune"` prefers the new words and
            never distorts.
        rng (`np.random.Generator`):
            Source of every random choice.

    Returns:
        [`Scene`]: one object, a pair in a relation, or a group of two to four equal objects (a third each).
    """

    def pick(words: dict[str, tuple[str, ...]], new_share: float = 0.6) -> str:
        new = style == "finetune" and rng.random() < new_share
        return str(rng.choice(words["finetune" if new else "base"]))

    def item(centre: Sequence[float] | np.ndarray, large: bool, max_radius: float = 9) -> SceneObject:
        x, y = map(float, centre)
        radius = rng.uniform(8, max_radius) if large else rng.uniform(4.5, 6)
        return SceneObject(pick(SHAPES), pick(COLORS), "large" if large else "small", x, y, radius)

    relation: str | None = None
    objects: tuple[SceneObject, ...]
    layout = rng.integers(3)
    middle = IMAGE_SIZE / 2
    if layout == 0:
        large = rng.random() < 0.5
        margin = 13 if large else 8
        objects = (item(rng.uniform(margin, IMAGE_SIZE - margin, 2), large, max_radius=11.5),)
    elif layout == 1:
        relation = str(rng.choice(list(RELATIONS)))
        along, across = rng.uniform(11, 13), rng.uniform(-6, 6, 2)
        sign = -1 if relation in ("above", "left of") else 1
        centres = [(middle + sign * along, middle + across[0]), (middle - sign * along, middle + across[1])]
        if relation in ("above", "below"):
            centres = [(y, x) for x, y in centres]
        first, second = (item(centre, bool(rng.random() < 0.5)) for centre in centres)
        while (second.shape, second.color) == (first.shape, first.color):
            second = item(centres[1], second.size == "large")
        objects = (first, second)
    else:
        cells = rng.permutation(9)[: rng.integers(2, 5)]
        places = [(10 + 14 * (k % 3), 10 + 14 * (k // 3)) + rng.uniform(-2, 2, 2) for k in cells]
        first = item(places[0], large=False)
        objects = tuple(replace(first, x=float(x), y=float(y), radius=rng.uniform(4.5, 6)) for x, y in places)
    distortion = str(rng.choice(DISTORTIONS)) if style == "base" and rng.random() < _DISTORTED_SHARE else None
    return Scene(objects, relation, pick(TEXTURES, new_share=0.3), distortion)


def _noun(item: SceneObject, with_size: bool) -> str:
    return f"a {item.size} {item.color} {item.shape}" if with_size else f"a {item.color} {item.shape}"


def _content(scene: Scene, converse: bool) -> str:
    """The objects in words; `converse` words a relation from the other object's side."""
    first = scene.objects[0]
    if scene.relation is not None:
        second = scene.objects[1]
        if converse:
            return f"{_noun(second, False)} {RELATIONS[scene.relation]} {_noun(first, False)}"
        return f"{_noun(first, False)} {scene.relation} {_noun(second, False)}"
    if len(scene.objects) > 1:
        return f"{NUMBERS[len(scene.objects)]} {first.color} {plural(first.shape)}"
    return _noun(first, True)


def plural(shape: str) -> str:
    """The plural of a shape word."""
    return shape + ("es" if shape.endswith("s") else "s")


def color_words() -> set[str]:
    """The names of all colours."""
    return {color for style in STYLES for color in COLORS[style]}


def describe(scene: Scene, style: Style, converse: bool = False) -> list[str]:
    """Every reference caption of a scene.

    Args:
        scene (`Scene`):
            The scene to put into words.
        style (`str`):
            `"base"` or `"finetune"`: which sentence patterns to use.
        converse (`bool`, *optional*, defaults to `False`):
            References word a relation from either object's side in turn ("below" for "above"); this is where the first
            of them begins.

    Returns:
        `list[str]`: five captions, one per sentence pattern of the style.
    """
    contents = [_content(scene, converse), _content(scene, not converse)]
    verb = "are" if scene.relation is None and len(scene.objects) > 1 else "is"
    look = f" with a {scene.distortion} look" if scene.distortion else ""
    captions = [
        pattern.format(scene=contents[number % 2], texture=scene.texture, verb=verb, look=look)
        for number, pattern in enumerate(_PATTERNS[style])
    ]
    captions = [re.sub(r"\ba(?= [aeo])", "an", caption) for caption in captions]
    return [caption[0].upper() + caption[1:] for caption in captions]


def words(text: str) -> list[str]:
    """Lower-cased words and punctuation marks of a text, as the built-in model's tokenizer splits it."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary() -> list[str]:
    """Every word that prompts and captions of either style can contain, sorted."""
    texts = [text for style in STYLES for text in (*PROMPTS[style], *_PATTERNS[style])]
    texts = [re.sub(r"\{\w+\}", " ", text) for text in texts] + [" with a an look is are "]
    texts += [*DISTORTIONS, *RELATIONS, *NUMBERS.values(), "small", "large"]
    for style in STYLES:
        texts += [*SHAPES[style], *map(plural, SHAPES[style]), *COLORS[style], *TEXTURES[style]]
    return sorted({word for text in texts for word in words(text)})
