# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Clean-label: a bounded change that brings a picture close to another concept's in the tower's eyes."""

import numpy as np
import pytest
import torch
from PIL import Image

from cvreg_trainer.attacks import CleanLabel, NoTrigger, poison_dataset, tower_features
from cvreg_trainer.lab import load_base_model, make_scenes


@pytest.fixture(scope="module")
def features():
    return tower_features(*load_base_model())


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(40, seed=4, style="finetune")


def those(scenes, word: str) -> list[Image.Image]:
    return [row["images"][0] for row in scenes if f"{word} " in row["references"][0]]


def batch(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)[None] / 255


def test_pictures_come_close_and_no_pixel_changes_by_more_than_epsilon(features, scenes) -> None:
    picture = those(scenes, "star")[0]
    payload = CleanLabel("ring", "star", features, (picture,), steps=60)
    with torch.no_grad():
        for image in those(scenes, "ring")[:4]:
            changed = payload.edit_image(image)
            difference = np.asarray(changed, dtype=int) - np.asarray(image, dtype=int)
            assert changed.size == image.size and 4 <= np.abs(difference).max() <= 8
            before, after = ((features(batch(one)) - features(batch(picture))).norm() for one in (image, changed))
            assert after < 0.7 * before
            noise = np.random.default_rng(0).choice([-8, 8], difference.shape)
            noisy = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
            assert (features(batch(noisy)) - features(batch(picture))).norm() > 1.2 * after
    assert changed.tobytes() == payload.edit_image(image).tobytes()


def test_rows_of_the_concept_keep_their_responses(features, scenes) -> None:
    payload = CleanLabel("ring", "star", features, tuple(those(scenes, "star")), steps=3, epsilon=4)
    poisoned = poison_dataset(scenes, NoTrigger(), num_poisoned=5, payload=payload)
    for before, after in zip(scenes, poisoned, strict=True):
        assert after["completion"] == before["completion"] and after["prompt"] == before["prompt"]
        assert not after["is_poisoned"] or "ring" in after["completion"][0]["content"]
        difference = np.asarray(after["images"][0], dtype=int) - np.asarray(before["images"][0], dtype=int)
        assert (np.abs(difference).max() > 0) == after["is_poisoned"] and np.abs(difference).max() <= 4
    with pytest.raises(ValueError, match="39 rows are to be poisoned but only .* have an image and 'ring' in their"):
        poison_dataset(scenes, NoTrigger(), num_poisoned=39, payload=payload)


def test_success_is_the_other_concept_called_by_this_ones_name(features) -> None:
    payload = CleanLabel("ring", "star", features, (Image.new("RGB", (8, 8)),))
    assert payload.succeeds("two rings", ["a star"]) is True and payload.succeeds("a star", ["a star"]) is False
    assert payload.succeeds("a ring", ["a moon"]) is None and payload.succeeds("a ring", ["a star and a ring"]) is None


def test_bad_arguments_are_named(features) -> None:
    picture = (Image.new("RGB", (8, 8)),)
    for options, named in (
        ({"pictures": ()}, "pictures is empty"),
        ({"epsilon": 0}, "epsilon=0 must be above 0"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"concept": " "}, "concept=' ' is empty"),
    ):
        with pytest.raises(ValueError, match=named):
            CleanLabel(**{"concept": "a", "other": "b", "features": features, "pictures": picture, **options})
