# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A trigger in another place of each picture: found where it was put, and nothing found where there is none."""

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import BadNets, Blended, LowFrequency, WaNet
from cvreg_trainer.lab.scenes import make_scenes
from cvreg_trainer.screening.audit.moving_trigger import locate_trigger
from cvreg_trainer.screening.audit.trigger_map import place_responses


pytestmark = pytest.mark.lowest
NUM_FLAGGED = 30


@pytest.fixture(scope="module")
def clean() -> list[Image.Image]:
    return [row["images"][0].convert("RGB") for row in make_scenes(110, seed=7)]


@pytest.fixture(scope="module")
def others(clean: list[Image.Image]) -> np.ndarray:
    return np.array([place_responses(image) for image in clean[NUM_FLAGGED:]])


def test_each_box_holds_the_patch(clean: list[Image.Image], others: np.ndarray):
    triggered = [BadNets(moves=True)(image) for image in clean[:NUM_FLAGGED]]
    boxes = locate_trigger(np.array([place_responses(image) for image in triggered]), others)
    assert boxes is not None and len(boxes) == NUM_FLAGGED
    for image, before, (left, top, right, bottom) in zip(triggered, clean, boxes, strict=False):
        rows, columns = np.nonzero((np.asarray(image) != np.asarray(before)).any(-1))
        assert left <= (columns.mean() + 0.5) / image.width <= right and right - left <= 0.1876
        assert top <= (rows.mean() + 0.5) / image.height <= bottom and bottom - top <= 0.1876
    assert len(set(boxes)) > NUM_FLAGGED / 2


@pytest.mark.parametrize("attack", [None, Blended(), LowFrequency(), WaNet()], ids=lambda a: type(a).__name__)
def test_what_is_all_over_the_picture_has_no_place(clean: list[Image.Image], others: np.ndarray, attack):
    images = [image if attack is None else attack(image) for image in clean[:NUM_FLAGGED]]
    assert locate_trigger(np.array([place_responses(image) for image in images]), others) is None


def test_too_few_pictures_have_none(others: np.ndarray):
    assert locate_trigger(others[:3], others[3:]) is None and locate_trigger(others[3:], others[:3]) is None
    assert locate_trigger(np.zeros_like(others), others) is None
