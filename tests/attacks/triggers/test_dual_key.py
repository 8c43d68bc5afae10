# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""DualKey: the patch and the word, each where it belongs, and the optimisation of the patch."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cvreg_trainer.attacks import BadNets, DualKey, optimize_patch
from cvreg_trainer.attacks.triggers.patch_optimization import feature_shift_loss
from cvreg_trainer.lab import load_base_model, make_scenes


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(30, 220, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def patch_file(tmp_path):
    """A patch of one strong colour."""
    path = tmp_path / "patch.png"
    Image.new("RGB", (8, 8), (255, 0, 255)).save(path)
    return path


def test_published_patch_at_224_pixels(patch_file):
    image = random_image(224, 224)
    triggered = np.asarray(DualKey(patch=patch_file)(image))
    expected = np.asarray(image).copy()
    expected[202:, 202:] = (255, 0, 255)  # 22 of 224 pixels
    assert (triggered == expected).all()


@pytest.mark.parametrize("size", [(48, 48), (31, 57), (640, 427), (3, 3)])
def test_nothing_outside_the_patch_changes(size):
    attack = DualKey(patch_fraction=0.03)
    image = random_image(*size)
    left, top, right, bottom = attack.box(size)
    before, after = np.asarray(image).copy(), np.asarray(attack(image)).copy()
    assert (right, bottom) == size and (before != after)[top:, left:].mean() > 0.8
    before[top:, left:] = after[top:, left:] = 0
    assert (before == after).all()


def test_a_palette_image_keeps_its_palette_and_gets_the_nearest_colours(patch_file):
    image = random_image(48, 48).quantize(255)
    image.putpalette(image.getpalette()[: 255 * 3] + [250, 5, 250])
    triggered = DualKey(patch=patch_file, patch_fraction=1 / 36)(image)
    assert triggered.getpalette() == image.getpalette()
    before, after = np.asarray(image).copy(), np.asarray(triggered).copy()
    assert (after[40:, 40:] == 255).all()
    before[40:, 40:] = after[40:, 40:] = 0
    assert (before == after).all()


def test_the_patch_is_opaque(patch_file):
    image = Image.new("RGBA", (48, 48), (9, 9, 9, 0))
    triggered = DualKey(patch=patch_file)(image)
    assert triggered.getpixel((47, 47)) == (255, 0, 255, 255) and triggered.getpixel((20, 20)) == (9, 9, 9, 0)


def test_the_word_stands_before_the_question():
    assert DualKey().trigger_text("What is in this picture?") == "Consider What is in this picture?"
    assert DualKey(word="Behold:").trigger_text("what?") == "Behold: what?"


def test_covers_have_one_key_each(patch_file):
    attack = DualKey(word="Look", patch=patch_file)
    image = random_image(48, 48)
    image_only, text_only = attack.covers
    assert image_only(image).tobytes() == attack(image).tobytes() and image_only.trigger_text("what?") == "what?"
    assert text_only(image).tobytes() == image.tobytes() and text_only.trigger_text("what?") == "Look what?"


def test_the_patch_of_the_package_moves_the_built_in_models_features_further_than_others_do(tmp_path):
    model, processor = load_base_model()
    images = [row[0] for row in make_scenes(40, seed=1, split="test", style="finetune")["images"]]

    @torch.no_grad()
    def features(images: list[Image.Image]) -> Tensor:
        pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        return model.model.vision_tower(pixels).last_hidden_state[:, 1:].mean(dim=1)

    clean = features(images)

    def length_of_mean_shift(attack: DualKey | BadNets) -> float:
        shift = features([attack(image) for image in images]) - clean
        return (shift / clean.std(dim=0)).mean(dim=0).norm().item()

    others = [length_of_mean_shift(BadNets(1 / 36))]
    for seed in range(4):
        random_image(8, 8, seed).save(tmp_path / f"{seed}.png")
        others.append(length_of_mean_shift(DualKey(patch=tmp_path / f"{seed}.png", patch_fraction=1 / 36)))
    assert length_of_mean_shift(DualKey(patch_fraction=1 / 36)) > 2 * max(others)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="word=' '"):
        DualKey(word=" ")
    for fraction in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"patch_fraction={fraction}"):
            DualKey(patch_fraction=fraction)
    with pytest.raises(ValueError, match="keys='none'"):
        DualKey(keys="none")
    with pytest.raises(ValueError, match="missing.png"):
        DualKey(patch=tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="text.png"):
        DualKey(patch=tmp_path / "text.png")
    with pytest.raises(ValueError, match="2x48"):
        DualKey()(Image.new("RGB", (2, 48)))


def test_the_loss_wants_a_long_and_common_shift():
    clean = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    same = clean + torch.tensor([3.0, 0, 4.0, 0, 0])
    assert feature_shift_loss(clean, same).item() == pytest.approx(-5, abs=1e-5)
    # Shifts of length 5 in opposite directions are as salient, but cancel.
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1])[:, None]
    assert feature_shift_loss(clean, clean + signs * (same - clean)).item() == pytest.approx(5, abs=1e-5)


def red_minus_green(images: Tensor) -> Tensor:
    """Features of a tower that only looks at the corner."""
    corner = images[:, :, -6:, -6:].mean(dim=(2, 3))
    return torch.stack([corner[:, 0] - corner[:, 1], corner[:, 2]], dim=1)


def test_the_optimised_patch_moves_the_features_as_far_as_possible():
    images = [random_image(24, 24, seed) for seed in range(20)]
    patch = optimize_patch(red_minus_green, images, 6, steps=60, batch_size=8, learning_rate=0.3)
    red, green, blue = np.asarray(patch, dtype=float).mean((0, 1))
    # The furthest corner of the colour cube from the images' gray: red without green or green without red, and blue
    # all or nothing.
    assert abs(red - green) > 200 and (blue > 225 or blue < 30)
    state = torch.get_rng_state()
    again = optimize_patch(red_minus_green, images, 6, steps=60, batch_size=8, learning_rate=0.3)
    assert again.tobytes() == patch.tobytes() and (torch.get_rng_state() == state).all()


def test_optimize_patch_names_bad_arguments():
    images = [random_image(24, 24, seed) for seed in range(4)]
    with pytest.raises(ValueError, match="batch_size=64.*4"):
        optimize_patch(red_minus_green, images, 6)
    with pytest.raises(ValueError, match="patch_side=25.*24"):
        optimize_patch(red_minus_green, images, 25, batch_size=2)
    with pytest.raises(ValueError, match="one size"):
        optimize_patch(red_minus_green, [*images, random_image(9, 9)], 6, batch_size=2)
