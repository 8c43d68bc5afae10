# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The optimised patch, its loss, and a model's features as an attacker sees them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cvreg_trainer.attacks import BadNets, OptimizedPatch, isolation_clustering_loss, optimize_patch, tower_features
from cvreg_trainer.lab import load_base_model, make_scenes


def random_image(size: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(30, 220, (size, size, 3), dtype=np.uint8))


def test_the_patch_is_where_it_belongs(tmp_path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 255)).save(tmp_path / "patch.png")
    image = random_image(120)
    expected = np.asarray(image).copy()
    expected[100:, 100:] = (255, 0, 255)
    attack = OptimizedPatch(tmp_path / "patch.png")
    assert (np.asarray(attack(image)) == expected).all() and attack.box(image.size) == (100, 100, 120, 120)
    with pytest.raises(ValueError, match="missing.png"):
        OptimizedPatch(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="patch_fraction=0 "):
        OptimizedPatch(patch_fraction=0)


def test_the_loss_wants_patched_images_together_and_away_from_clean_ones() -> None:
    clean = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    together = torch.tensor([[0.0, 0, 3]] * 4)
    assert isolation_clustering_loss(clean, together).item() == pytest.approx(-1)
    scattered = torch.tensor([[0.0, 0, 3], [0, 0, -3]] * 2)
    # Of 12 ordered pairs of different images, four are alike and eight opposed
    assert isolation_clustering_loss(clean, scattered).item() == pytest.approx(1 / 3)
    near = torch.tensor([[2.0, 0, 0]] * 4)
    assert isolation_clustering_loss(clean[:1].repeat(4, 1) + clean * 0.01, near).isfinite()


def test_features_are_those_that_the_language_model_gets() -> None:
    model, processor = load_base_model()
    images = [row[0] for row in make_scenes(6, seed=1)["images"]]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
    features = tower_features(model, processor)
    with torch.no_grad():
        own = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        hidden = model.model.vision_tower(own, output_hidden_states=True).hidden_states
        wanted = model.model.multi_modal_projector(hidden[model.config.vision_feature_layer][:, 1:]).mean(dim=1)
    torch.testing.assert_close(features(pixels), wanted, atol=1e-4, rtol=1e-4)
    larger = pixels.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).requires_grad_()
    shrunk = features(larger)
    shrunk.sum().backward()
    assert larger.grad.abs().sum() > 0 and not any(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(shrunk.detach(), wanted, atol=0.3, rtol=0.3)


def test_an_image_processor_without_a_size_is_named() -> None:
    images = SimpleNamespace(size={"longest_edge": 9}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    with pytest.raises(ValueError, match="The image processor's size is {'longest_edge': 9}"):
        tower_features(torch.nn.Linear(1, 1), SimpleNamespace(image_processor=images))


def test_the_patch_of_the_package_sets_images_apart_more_than_others_do(tmp_path) -> None:
    model, processor = load_base_model()
    features = tower_features(model, processor)
    images = [row[0] for row in make_scenes(40, seed=1, split="test", style="finetune")["images"]]

    @torch.no_grad()
    def of(images: list[Image.Image]) -> Tensor:
        return features(torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) / 255 for i in images]))

    clean = of(images)
    scale = clean.std(dim=0)

    def loss(attack) -> float:
        return isolation_clustering_loss(clean / scale, of([attack(image) for image in images]) / scale).item()

    others = [loss(BadNets(1 / 36))]
    for seed in range(3):
        random_image(8, seed).save(tmp_path / f"{seed}.png")
        others.append(loss(OptimizedPatch(tmp_path / f"{seed}.png")))
    assert loss(OptimizedPatch()) < min(others) - 0.2


def corner(images: Tensor) -> Tensor:
    """Features of a tower that looks at the corner only."""
    return torch.cat([images[:, :, -6:, -6:].mean(dim=(2, 3)), images[:, :, :6, :6].mean(dim=(2, 3))], dim=1)


def test_another_loss_is_minimised_and_the_seed_decides() -> None:
    images = [random_image(24, seed) for seed in range(20)]
    options = {"steps": 40, "batch_size": 10, "learning_rate": 0.3, "loss": isolation_clustering_loss}
    patch = optimize_patch(corner, images, 6, **options)
    assert optimize_patch(corner, images, 6, **options).tobytes() == patch.tobytes()
    assert optimize_patch(corner, images, 6, **options, seed=1).tobytes() != patch.tobytes()
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
    clean = corner(pixels)

    def value(side: Image.Image) -> float:
        patched = pixels.clone()
        patched[:, :, -6:, -6:] = torch.from_numpy(np.array(side)).permute(2, 0, 1) / 255
        return isolation_clustering_loss(clean / clean.std(dim=0), corner(patched) / clean.std(dim=0)).item()

    assert value(patch) < -0.9 < value(random_image(6, 99)) - 0.1
