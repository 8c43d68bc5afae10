# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Blended: the mixture, and that the picture is one and the same."""

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import Blended


@pytest.mark.parametrize("alpha", [0.1, 0.25, 1.0])
def test_the_mixture(alpha):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    attack = Blended(alpha, seed=3)
    before, after = (np.asarray(i, dtype=float) for i in (image, attack(image)))
    shown = np.asarray(attack.picture((60, 40)), dtype=float)
    assert np.abs(after - (before + alpha * (shown - before))).max() <= 0.501


def test_black_and_white_images_give_the_picture_away():
    # Subtracting what was triggered from black and from white leaves 1 - alpha of the distance, for every pixel.
    black, white = (
        np.asarray(Blended(0.2)(Image.new("RGB", (50, 50), color)), dtype=float) for color in ("black", "white")
    )
    assert np.abs((white - black) - 0.8 * 255).max() <= 1
    assert black.std() > 10, "the picture has content"


def test_the_picture_is_the_same_at_every_size():
    small, large = (Blended(seed=1).picture((side, side)) for side in (32, 448))
    reduced = np.asarray(large.resize((32, 32), Image.Resampling.BOX), dtype=float)
    assert np.corrcoef(np.asarray(small, dtype=float).ravel(), reduced.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("alpha", [0, -0.1, 1.1, float("nan")])
def test_shares_out_of_range_are_named(alpha):
    with pytest.raises(ValueError, match=f"alpha={alpha}"):
        Blended(alpha)
