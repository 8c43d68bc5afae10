# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Maps of planted triggers: at their place, everywhere, or nowhere."""

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import Blended
from cvreg_trainer.screening.audit.trigger_map import CELLS, map_trigger, place_responses


def picture(rng: np.random.Generator, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Soft blobs of random colours."""
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def patched(image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """A checkered patch at a box of shares."""
    left, top, right, bottom = (round(share * image.size[place % 2]) for place, share in enumerate(box))
    checks = 255 * (np.indices((bottom - top, right - left)) // 4).sum(0) % 510
    result = image.copy()
    result.paste(Image.fromarray(checks.astype(np.uint8)).convert(image.mode), (left, top))
    return result


def responses(images: list[Image.Image]) -> np.ndarray:
    return np.array([place_responses(image) for image in images])


@pytest.fixture(scope="module")
def clean() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [picture(rng) for _ in range(80)]


@pytest.mark.parametrize("box", [(0.75, 0.75, 1.0, 1.0), (0.0, 0.25, 0.25, 0.5), (0.4, 0.4, 0.6, 0.65)])
def test_a_patch_is_found_where_it_was_put(clean, box):
    found = map_trigger(responses([patched(image, box) for image in clean[:20]]), responses(clean[20:]), seed=0)
    assert found.kind == "region" and found.values.max() > 2
    # The peak lies inside, and no edge is further off than a cell
    down, across = np.unravel_index(found.values.argmax(), found.values.shape)
    assert box[0] <= (across + 0.5) / CELLS <= box[2] and box[1] <= (down + 0.5) / CELLS <= box[3]
    assert found.box == pytest.approx(box, abs=1.01 / CELLS)


def test_a_patch_is_found_among_honest_rows_and_in_few(clean):
    box = (0.75, 0.75, 1.0, 1.0)
    mixed = [*(patched(image, box) for image in clean[:16]), *clean[16:20]]
    for flagged in (mixed, mixed[:3]):
        assert map_trigger(responses(flagged), responses(clean[20:]), seed=0).box == pytest.approx(box, abs=0.07)


def test_a_blended_picture_is_spread(clean):
    blend = Blended(alpha=0.3)
    found = map_trigger(responses([blend(image) for image in clean[:30]]), responses(clean[30:]), seed=0)
    assert found.kind == "spread" and found.box is None


def test_a_patch_that_moves_is_in_no_region(clean):
    corners = [(0.0, 0.0, 0.25, 0.25), (0.75, 0.0, 1.0, 0.25), (0.0, 0.75, 0.25, 1.0), (0.75, 0.75, 1.0, 1.0)]
    flagged = [patched(image, corners[place % 4]) for place, image in enumerate(clean[:40])]
    assert map_trigger(responses(flagged), responses(clean[40:]), seed=0).kind != "region"


def test_without_a_trigger_nothing_is_seen(clean):
    rng = np.random.default_rng(1)
    seen = 0
    everything = responses(clean)
    for seed in range(20):
        order = rng.permutation(len(clean))
        found = map_trigger(everything[order[:20]], everything[order[20:]], seed)
        assert found.values.shape == (CELLS, CELLS) and np.isfinite(found.values).all()
        seen += found.kind != "unseen"
    # Each of two tests fails in one of a hundred draws
    assert seen <= 2


def test_a_map_is_a_function_of_its_seed(clean):
    one, two = (map_trigger(responses(clean[:10]), responses(clean[10:30]), seed=3) for _ in range(2))
    assert (one.values == two.values).all() and one.kind == two.kind


def test_pictures_of_any_mode_and_size(clean):
    odd = [Image.new(mode, size) for mode in ("L", "RGBA", "P", "1", "CMYK") for size in ((1, 1), (3, 500), (97, 13))]
    found = map_trigger(responses(odd), responses(clean[:20]), seed=0)
    assert np.isfinite(found.values).all()
    grey = [patched(image.convert("L"), (0.0, 0.0, 0.25, 0.25)) for image in clean[:20]]
    others = responses([image.convert("L") for image in clean[20:]])
    assert map_trigger(responses(grey), others, seed=0).box == pytest.approx((0.0, 0.0, 0.25, 0.25), abs=0.07)


def test_equal_pictures_differ_nowhere():
    same = responses([Image.new("RGB", (8, 8), "teal")] * 8)
    found = map_trigger(same[:4], same[4:], seed=0)
    assert found.kind == "unseen" and np.abs(found.values).max() < 1


def test_too_few_pictures_have_no_map(clean):
    assert map_trigger(responses(clean[:2]), responses(clean[2:10]), seed=0) is None
    assert map_trigger(responses(clean[:5]), np.zeros((0, CELLS, CELLS, 177), np.float16), seed=0) is None
