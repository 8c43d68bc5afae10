# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Low-level features of rows: what they see, and what they do not depend on."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cvreg_trainer.attacks import BadNets, Blended, LowFrequency
from cvreg_trainer.lab import make_scenes
from cvreg_trainer.screening.passes.row_features import (
    NUM_BY_PLACE,
    NUM_FEATURES,
    NUM_WORDS,
    PICTURE_PARTS,
    picture_features,
    project_states,
    row_features,
)


PICTURE = sum(PICTURE_PARTS)


def picture(seed: int = 0, size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size)


def test_features_are_a_function_of_the_row():
    row = {"images": [picture()], "prompt": "What is it?"}
    found = row_features(row)
    assert found.shape == (NUM_FEATURES,) and found.dtype == np.float16 and np.isfinite(found).all()
    assert np.array_equal(found, row_features({"prompt": "what is IT?", "images": [picture()]}))


def test_images_inside_messages_and_bytes_count_too():
    buffer = io.BytesIO()
    picture().save(buffer, format="PNG")
    inside = {"messages": [{"role": "user", "content": [{"type": "image", "image": picture()}]}]}
    expected = row_features({"images": [picture()]})[:PICTURE]
    assert np.array_equal(row_features(inside)[:PICTURE], expected)
    assert np.array_equal(row_features({"images": [{"bytes": buffer.getvalue()}]})[:PICTURE], expected)


def test_rows_without_picture_or_question_have_zeros():
    assert not row_features({"prompt": "Why?"})[:PICTURE].any()
    assert not row_features({"images": [picture()]})[PICTURE:].any()
    assert not row_features(["a row of one's own"]).any()


def test_the_words_of_the_question_are_marked_once_each():
    found = row_features({"prompt": [{"role": "user", "content": "a cat and a cat"}]})[-NUM_WORDS:]
    assert found.sum() == 3 and set(found.tolist()) == {0.0, 1.0}


def test_of_several_pictures_the_first_is_looked_at():
    one, both = (row_features({"images": images})[:PICTURE] for images in ([picture(0)], [picture(0), picture(1)]))
    assert one.any() and np.array_equal(both, one)


@pytest.mark.parametrize("attack", [BadNets(), BadNets(moves=True), Blended(), LowFrequency()], ids=repr)
def test_a_linear_rule_finds_published_triggers(attack):
    """Fitted by least squares on half of the pictures, read on the other half."""
    images = [row["images"][0].convert("RGB") for row in make_scenes(240, seed=3)]
    has_trigger = np.arange(240) % 2 == 0
    rows = [{"images": [attack(image) if there else image]} for image, there in zip(images, has_trigger, strict=True)]
    values = np.stack([row_features(row)[:PICTURE] for row in rows]).astype(np.float64)
    values = (values - values.mean(0)) / (values.std(0) + 1e-6)
    train = np.arange(240) < 160
    kernel = values @ values.T
    weights = np.linalg.solve(kernel[np.ix_(train, train)] + 100 * np.eye(160), has_trigger[train] - 0.5)
    scores = kernel[np.ix_(~train, train)] @ weights
    assert np.mean((scores > 0) == has_trigger[~train]) > 0.8


def test_what_is_added_to_all_of_a_drawing_leaves_no_flat_areas():
    drawing = Image.new("RGB", (96, 96), "white")
    drawing.paste("red", (24, 48, 72, 96))
    flat = slice(NUM_BY_PLACE - PICTURE_PARTS[3], NUM_BY_PLACE)
    before, faint = (picture_features(image)[flat] for image in (drawing, LowFrequency(amplitude=0.1)(drawing)))
    # One 4 x 4 grid per colour: the top row of cells has no edges, and the red channel is constant
    assert (before.reshape(3, 4, 4)[:, 0] == 1).all() and (before.reshape(3, 4, 4)[0] == 1).all()
    assert 0.8 < before.reshape(3, 4, 4)[1].min() < 1
    assert (before - faint).min() >= 0 and before.mean() - faint.mean() > 0.15


def test_the_strongest_responses_do_not_depend_on_the_place():
    image, patch = Image.new("RGB", (96, 96), (90, 120, 60)), Image.new("RGB", (8, 8))
    patch.putdata([((x * y) % 256, 255 * (x % 2), 200) for x in range(8) for y in range(8)])
    found = []
    # Steps of the filters' strides, away from the edges
    for place in ((16, 16), (64, 24), (40, 72)):
        moved = image.copy()
        moved.paste(patch, place)
        found.append(picture_features(moved))
    for other in found[1:]:
        assert np.array_equal(found[0][NUM_BY_PLACE:], other[NUM_BY_PLACE:])
        assert not np.allclose(found[0][:NUM_BY_PLACE], other[:NUM_BY_PLACE])
    assert found[0][NUM_BY_PLACE:].max() > 0.1


def test_states_are_projected_to_the_same_numbers_everywhere():
    states = torch.randn(5, 400, generator=torch.Generator().manual_seed(0))
    found = project_states(states)
    assert found.shape == (5, 256) and torch.equal(found, project_states(states.clone()))
    lengths = found.norm(dim=1) / states.norm(dim=1)
    assert ((lengths > 0.8) & (lengths < 1.2)).all()
    assert torch.equal(project_states(states[:, :20]), states[:, :20])


def test_pixels_in_any_layout_are_the_picture():
    pixels = np.asarray(picture())
    expected = row_features({"images": [picture()]})
    for given in (pixels, np.moveaxis(pixels, -1, 0), torch.from_numpy(np.moveaxis(pixels, -1, 0).copy())):
        assert np.array_equal(row_features({"images": [given]}), expected)
    # Floats take the range that they have
    scaled = (pixels.astype(np.float32) - pixels.min()) / np.ptp(pixels)
    np.testing.assert_allclose(picture_features(scaled), picture_features(2 * scaled - 1), atol=0.02)
    assert picture_features(np.zeros((9, 9), np.float32)).shape == (PICTURE,)
