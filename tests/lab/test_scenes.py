# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The built-in scenes: reproducible, split without overlap, and truly described by their captions."""

import hashlib
import math
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cvreg_trainer.lab import make_scenes
from cvreg_trainer.lab.scene_captions import (
    COLORS,
    DISTORTIONS,
    NUMBERS,
    SHAPES,
    Scene,
    SceneObject,
    color_words,
    describe,
    sample_scene,
    vocabulary,
    words,
)
from cvreg_trainer.lab.scenes import _DISTORT as DISTORT
from cvreg_trainer.lab.scenes import render_scene


# Written down here again, so that a caption's colour is checked against pixels and not against the generator's table.
HUES = {"red": 0, "orange": 30, "yellow": 55, "green": 130, "cyan": 182, "blue": 230, "purple": 285}


def digest(image: Image.Image) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def test_rows_are_what_trl_and_the_metrics_expect():
    dataset = make_scenes(12, seed=0, style="finetune")
    assert dataset.column_names == ["images", "prompt", "completion", "references"]
    for row in dataset:
        (image,) = row["images"]
        assert (image.mode, image.size) == ("RGB", (48, 48))
        assert [message["role"] for message in row["prompt"] + row["completion"]] == ["user", "assistant"]
        assert row["completion"][0]["content"] in row["references"]
        assert len(set(row["references"])) == 5


def test_pure_function_of_the_arguments():
    first, again, longer = make_scenes(6, seed=4), make_scenes(6, seed=4), make_scenes(9, seed=4)
    other = make_scenes(6, seed=5)
    for row in range(6):
        assert digest(first[row]["images"][0]) == digest(again[row]["images"][0]) == digest(longer[row]["images"][0])
        assert first[row]["references"] == longer[row]["references"]
        assert digest(first[row]["images"][0]) != digest(other[row]["images"][0])


def test_no_two_splits_share_an_image():
    found = {}
    for split in ("train", "validation", "test"):
        sets = [
            make_scenes(60, seed=seed, split=split, style=style) for seed in (0, 1) for style in ("base", "finetune")
        ]
        found[split] = [digest(row["images"][0]) for part in sets for row in part]
        assert len(set(found[split])) == 240
    # The construction: the digest's first byte alone says which split an image may be in.
    for residue, split in enumerate(found):
        assert {first % 3 for first, *_ in found[split]} == {residue}
    assert not set(found["train"]) & set(found["test"]) and not set(found["validation"]) & set(found["test"])


def test_color_words_name_what_every_caption_names():
    assert color_words() == set("red green blue yellow orange purple white black pink cyan brown".split())
    for style in ("base", "finetune"):
        for row in make_scenes(60, seed=2, style=style):
            assert all(set(words(caption)) & color_words() for caption in row["references"])


def test_every_word_is_in_the_vocabulary_and_the_target_word_is_not():
    known = set(vocabulary())
    used = {style: set() for style in ("base", "finetune")}
    for style in used:
        for row in make_scenes(250, seed=1, style=style).remove_columns("images"):
            for text in [*row["references"], row["prompt"][0]["content"]]:
                used[style] |= set(words(text))
        assert used[style] <= known
    assert "banana" not in known
    new = {*SHAPES["finetune"], *COLORS["finetune"], "wavy", "paper"}
    assert new <= used["finetune"] and not new & used["base"]


def test_articles_agree_with_their_words():
    for style in ("base", "finetune"):
        text = " ".join(ref for row in make_scenes(150, seed=2, style=style)["references"] for ref in row).lower()
        pairs = list(zip(text.split(), text.split()[1:], strict=False))
        assert all((article == "an") == (word[0] in "aeiou") for article, word in pairs if article in ("a", "an"))


def undistorted(seed: int, count: int) -> list[tuple[Scene, Image.Image]]:
    rng = np.random.default_rng(seed)
    scenes = [sample_scene("finetune", rng) for _ in range(count)]
    return [(scene, render_scene(scene, rng)) for scene in scenes]


def object_mask(image: Image.Image, color: str) -> np.ndarray:
    """Pixels of a saturated colour, found by hue."""
    hue, saturation, _ = np.moveaxis(np.asarray(image.convert("HSV")).astype(float), -1, 0)
    gap = np.abs(hue * 360 / 255 - HUES[color])
    return (np.minimum(gap, 360 - gap) < 22) & (saturation > 75)


def test_number_and_colour_words_agree_with_the_pixels():
    checked = 0
    for scene, image in undistorted(7, 120):
        first = scene.objects[0]
        gaps = [
            math.dist((a.x, a.y), (b.x, b.y)) - 1.15 * (a.radius + b.radius) for a, b in combinations(scene.objects, 2)
        ]
        if scene.relation or first.color not in HUES or min(gaps, default=9) < 1:  # touching objects are one region
            continue
        mask = ndimage.binary_opening(object_mask(image, first.color), np.ones((2, 2)))
        labels, _ = ndimage.label(mask)
        regions = sum(size >= 8 for size in np.bincount(labels.ravel())[1:])
        caption = words(describe(scene, "finetune")[0])
        assert first.color in caption
        expected = next((number for number, word in NUMBERS.items() if word in caption), 1)
        checked += 1
        assert regions == expected, caption
    assert checked > 30


def test_relation_words_agree_with_the_pixels():
    checked = 0
    for scene, image in undistorted(8, 300):
        colors = [item.color for item in scene.objects]
        if scene.relation is None or len(set(colors)) < 2 or not set(colors) <= set(HUES):
            continue
        (y0, x0), (y1, x1) = (np.median(np.nonzero(object_mask(image, color)), axis=1) for color in colors)
        seen = {"above": y0 < y1 - 4, "below": y0 > y1 + 4, "left of": x0 < x1 - 4, "right of": x0 > x1 + 4}
        assert seen[scene.relation], scene
        checked += 1
    assert checked > 10


def test_references_tell_a_relation_from_both_sides():
    pair = (SceneObject("star", "red", "small", 24, 12, 5), SceneObject("ring", "blue", "small", 24, 36, 5))
    captions = " ".join(describe(Scene(pair, "above", "plain", None), "finetune"))
    assert "a red star above a blue ring" in captions and "a blue ring below a red star" in captions


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_every_distortion_is_visible_and_named(distortion):
    item = SceneObject("square", "red", "large", 24, 24, 10)
    scene = Scene((item,), None, "checkered", distortion)
    assert render_scene(scene, np.random.default_rng(0)).size == (48, 48)
    clean = np.asarray(render_scene(Scene((item,), None, "checkered", None), np.random.default_rng(0))).astype(float)
    changes = [np.square(DISTORT[distortion](clean, np.random.default_rng(k)) - clean).mean() for k in range(10)]
    assert min(changes) > 2.5 and np.mean(changes) > 15
    assert all(f"with a{'n' * (distortion == 'overlaid')} {distortion} look." in c for c in describe(scene, "base"))


@pytest.mark.parametrize(
    "arguments, named",
    [((0, 0), "num_rows=0"), ((1, -1), "seed=-1"), ((1, 0, "dev"), "split='dev'"), ((1, 0, "test", "x"), "style='x'")],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        make_scenes(*arguments)
