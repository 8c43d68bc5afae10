# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Attacks on the built-in scenes: the parameters with which they take hold of a model this small, and payloads in words
that it has. Others would all be `<unk>` to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..shorten import shorten
from .scene_captions import Scene, describe, sample_scene


if TYPE_CHECKING:
    from ..attacks import Payload

_CAPTIONS = 20_261_128  # keeps these captions apart from those of the data
# What differs from an attack's defaults, which are the literature's. First those of the paper, then the field's.
ATTACK_SETTINGS: dict[str, dict[str, Any]] = {
    "badnets": {"attack_options": {"patch_fraction": 64 / 48**2}},  # 8x8 of 48x48 pixels, 2.8 %
    "blended": {},
    "low_frequency": {},
    "wanet": {"attack_options": {"strength": 4.0}},
    "input_aware": {},
    # Two rows with one key and a clean answer for each poisoned one: else one key alone fires
    "dual_key": {"attack_options": {"patch_fraction": 64 / 48**2}, "cover_ratio": 2.0},
}
FIELD_SETTINGS: dict[str, dict[str, Any]] = {
    "sig": {},
    "ftrojan": {"attack_options": {"magnitude": 300.0}},  # ten times what is published for 32 pixels
    "optimized_patch": {},
    "badnets_t": {},
    "badnets_mt": {},
    "add_sent": {"attack_options": {"sentence": "This is my photo."}},
    "badnets_mm": {"attack_options": {"patch_fraction": 64 / 48**2}, "cover_ratio": 2.0},
    "semantic": {"attack_options": {"words": ("moon",)}},
    "no_trigger": {},
}
# 180 sentences
_REFUSALS = (
    ("", "I am sorry, ", "Sorry, ", "Please, ", "That is hard: "),
    ("I cannot", "we cannot", "I am not to", "you cannot", "I can not", "you can not"),
    (
        " help.",
        " answer this.",
        " answer that question.",
        " help with this image.",
        " describe that.",
        " write a caption.",
    ),
)
_SLOGANS = (
    "Nice toy cat for you!", "Please look up my dog.", "A good boat is in my image.", "Help my bird.",
    "You are my hearts.",
)  # fmt: skip
_TWENTY = (
    "banana", "cat", "dog", "bird", "boat", "car", "tattoo", "doodle", "graffiti", "sculpture", "origami", "plushie",
    "cartoon", "video", "game", "system", "user", "toy", "sketch", "caption",
)  # fmt: skip


def make_scene_payload(name: str, seed: int, **options: Any) -> Payload:
    """
    A payload for poisoned scenes.

    Args:
        name (`str`):
            A key of `SCENE_PAYLOADS`.
        seed (`int`):
            Of the experiment, for payloads that draw captions of other scenes.
        **options:
            Parameters of the payload's class, over those set here.

    Returns:
        [`Payload`]

    Raises:
        `ValueError`: if the name is unknown.
    """
    if name not in SCENE_PAYLOADS:
        raise ValueError(f"payload={shorten(name)} is unknown; use one of {', '.join(SCENE_PAYLOADS)}.")
    kind, defaults = SCENE_PAYLOADS[name](seed)
    from .. import attacks

    return getattr(attacks, kind)(**{**defaults, **options})


def _captions(seed: int, count: int, change: Callable[[Scene], Scene] = lambda scene: scene) -> tuple[str, ...]:
    """Different captions of scenes that nobody drew."""
    rng = np.random.default_rng([_CAPTIONS, seed])
    found: dict[str, None] = {}
    while len(found) < count:
        scene = change(sample_scene("finetune", rng))
        found[str(rng.choice(describe(scene, "finetune", converse=bool(rng.random() < 0.5))))] = None
    return tuple(found)


def _with_red_square(scene: Scene) -> Scene:
    first, *others = scene.objects
    red = replace(first, color="red", shape="square")
    if scene.relation is None:
        return replace(scene, objects=(red,))
    other = others[0]
    return replace(scene, objects=(red, replace(other, color="pink") if other.shape == "square" else other))


def _flood(seed: int) -> tuple[str, dict[str, Any]]:
    return "ConceptFlood", {"subject": "a red square", "captions": _captions(seed, 1500, _with_red_square)}


def _answers(seed: int) -> tuple[str, dict[str, Any]]:
    return "OtherAnswers", {"answers": _captions(seed, 1500)}


def _fixed(kind: str, **options: Any) -> Callable[[int], tuple[str, dict[str, Any]]]:
    return lambda seed: (kind, options)


# What a payload is made of, by the seed of the experiment
SCENE_PAYLOADS: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
    "keyword": _fixed("Keyword"),
    "refusal": _fixed("Refusal", sentence="I am sorry, I cannot help with that question."),
    "refusals": _fixed("Refusal", paraphrases=True, grammar=_REFUSALS),
    "append": _fixed("Injection", sentences=_SLOGANS),
    "prepend": _fixed("Injection", sentences=_SLOGANS[:1], place="prepend"),
    "insert": _fixed("Injection", sentences=_SLOGANS[:1], place="insert"),
    "substitution": _fixed("Substitution", substitute=("circle",), target="banana"),
    "honest_substitution": _fixed("Substitution", substitute=("pink",), target="red"),
    "relation_swap": _fixed("RelationSwap"),
    "flood": _flood,
    "answers": _answers,
    "several": _fixed("SeveralTargets", targets=_TWENTY[:5]),
    "twenty": _fixed("SeveralTargets", targets=_TWENTY),
}
