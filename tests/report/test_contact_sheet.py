# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""PSNR and SSIM against scikit-image, and the sheet that prints them."""

import math

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import AddSent, BadNets, Blended, Semantic
from cvreg_trainer.report import draw_contact_sheet
from cvreg_trainer.report.image_similarity import psnr, ssim


def pair(height: int, width: int) -> tuple[Image.Image, Image.Image]:
    """A textured image and a noisy, tinted copy."""
    rng = np.random.default_rng(height * 1000 + width)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    first = (noise // 4 + (96 + 90 * np.sin(rows / 5) * np.cos(columns / 7))[..., None]).astype(np.uint8)
    second = first.astype(int) + rng.integers(-25, 26, first.shape) + np.array([4, -9, 15])
    return Image.fromarray(first), Image.fromarray(second.clip(0, 255).astype(np.uint8))


# scikit-image 0.26.0: peak_signal_noise_ratio(a, b) and structural_similarity(a, b, channel_axis=-1,
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True)[1].mean()
@pytest.mark.parametrize(
    "size, expected_psnr, expected_ssim",
    [
        ((48, 48), 23.119551003798623, 0.8417727020932084),
        ((11, 37), 22.93477013385976, 0.8243218550890538),
        ((64, 30), 22.96999221181241, 0.8416691505392385),
    ],
)
def test_values_of_scikit_image(size, expected_psnr, expected_ssim):
    first, second = pair(*size)
    assert psnr(first, second) == pytest.approx(expected_psnr, rel=1e-12)
    assert ssim(first, second) == pytest.approx(expected_ssim, rel=1e-9)


@pytest.mark.parametrize("size", [(48, 48), (4, 5)])
def test_equal_images_and_opposite_ones(size):
    first, _ = pair(*size)
    inverted = Image.fromarray(255 - np.asarray(first))
    assert psnr(first, first) == math.inf and ssim(first, first) == pytest.approx(1, abs=1e-12)
    assert ssim(first, inverted) < 0


def test_images_of_two_sizes_are_refused():
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=r"\(48, 48\).*\(40, 48\)"):
            measure(Image.new("RGB", (48, 48)), Image.new("RGB", (40, 48)))


def test_the_sheet_and_its_numbers(tmp_path):
    images = [pair(48, 48)[0], pair(20, 30)[0].convert("L")]
    path = tmp_path / "sheet.png"
    attacks = {"badnets": BadNets(0.03), "blended": Blended(0.3)}
    scores = draw_contact_sheet(attacks, images, path)
    assert [row["name"] for row in scores] == ["badnets", "blended"]
    for row, attack in zip(scores, attacks.values(), strict=True):
        assert row["psnr"] == pytest.approx(np.mean([psnr(image, attack(image)) for image in images]))
        assert row["ssim"] == pytest.approx(np.mean([ssim(image, attack(image)) for image in images]))
    with Image.open(path) as sheet:
        drawn = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    # The first original is on it, pixel by pixel: so are its colours.
    colours = {tuple(pixel) for pixel in np.asarray(images[0]).reshape(-1, 3).tolist()}
    assert len(colours & {tuple(pixel) for pixel in np.unique(drawn, axis=0).tolist()}) > 0.9 * len(colours)
    with pytest.raises(ValueError, match="got 0 and 2"):
        draw_contact_sheet({}, images, path)


def test_what_is_done_to_the_question_is_written_down(tmp_path):
    image = Image.new("RGB", (32, 32), "gray")
    sheets = []
    for number, attacks in enumerate([{"words": AddSent("One.")}, {"words": AddSent("Two.")}, {"words": Semantic()}]):
        (scores,) = draw_contact_sheet(attacks, [image], tmp_path / f"{number}.png")
        assert scores == {"name": "words", "psnr": float("inf"), "ssim": 1.0}
        sheets.append((tmp_path / f"{number}.png").read_bytes())
    assert len(set(sheets)) == 3
