# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""InputAware: the trigger depends on the image, and training makes triggers that belong to their images."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from cvreg_trainer.attacks import InputAware, train_input_aware
from cvreg_trainer.attacks.triggers.input_aware import SCENES_WEIGHTS, TriggerNetworks, load_trigger_networks
from cvreg_trainer.attacks.triggers.input_aware_training import diversity_loss
from cvreg_trainer.lab import make_scenes


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [row[0] for row in make_scenes(24, seed=5, split="test", style="finetune")["images"]]


@pytest.fixture(scope="module")
def small(tmp_path_factory, scenes) -> Path:
    """Networks trained for a few seconds, at 16 pixels."""
    path = tmp_path_factory.mktemp("input_aware") / "small.safetensors"
    train_input_aware(scenes, path, image_size=16, batch_size=12, mask_epochs=80, epochs=10, seed=3)
    return path


def as_tensor(images: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(i, dtype=np.float32) for i in images])).permute(0, 3, 1, 2) / 255


def test_the_formula(scenes):
    """x + m (p - x) with the networks' own outputs, at the size they were trained on."""
    networks = load_trigger_networks(SCENES_WEIGHTS)
    x = as_tensor(scenes)
    pattern, mask = networks.pattern(x), networks.mask(x)
    expected = 255 * (x + 0.5 * mask * (pattern - x)).permute(0, 2, 3, 1).numpy()
    for image, wanted in zip(scenes, expected, strict=True):
        assert np.abs(np.asarray(InputAware(opacity=0.5)(image), dtype=float) - wanted).max() < 0.51


def test_the_weights_of_the_package(scenes):
    assert SCENES_WEIGHTS.stat().st_size < 500_000
    networks = load_trigger_networks(SCENES_WEIGHTS)
    x = as_tensor(scenes)
    mask, pattern = networks.mask(x), networks.pattern(x)
    assert 0.01 < mask.mean().item() < 0.05, "the trigger covers a small part of the image"
    changes = (mask * (pattern - x)).flatten(1)
    assert changes.norm(dim=1).min() > 1, "every image gets a trigger"
    unlike = torch.corrcoef(changes)[~torch.eye(len(changes), dtype=torch.bool)]
    assert unlike.mean() < 0.2, "triggers of different images differ"


@pytest.mark.slow
def test_another_classifier_learns_the_trigger_and_that_it_belongs_to_its_image():
    def views(num_images: int, split: str) -> tuple[torch.Tensor, ...]:
        """Clean images, with their own triggers, with another image's trigger."""
        x = as_tensor([row[0] for row in make_scenes(num_images, seed=3, split=split, style="finetune")["images"]])
        networks = load_trigger_networks(SCENES_WEIGHTS)
        mask, pattern = networks.mask(x), networks.pattern(x)
        other_mask, other_pattern = mask.roll(1, 0), pattern.roll(1, 0)
        return x, x + mask * (pattern - x), x + other_mask * (other_pattern - x)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 24, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(48, 48, 3, 2, 1),
        ]
        classifier = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2))
        optimizer = torch.optim.Adam(classifier.parameters(), lr=3e-3)
        train = views(400, "train")
        for _ in range(400):
            rows = torch.randperm(400)[:32]
            labels = torch.tensor([0, 1, 0]).repeat_interleave(32)
            loss = F.cross_entropy(classifier(torch.cat([view[rows] for view in train])), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            clean, own, other = (classifier(view).argmax(1).float().mean().item() for view in views(200, "test"))
    assert own > 0.8 and clean < 0.05 and other < 0.25


def test_a_large_image_gets_the_trigger_of_its_small_version(scenes):
    image = scenes[0]
    large = image.resize((192, 192), Image.Resampling.NEAREST)
    change = np.asarray(InputAware()(large), dtype=float) - np.asarray(large)
    reduced = change.reshape(48, 4, 48, 4, 3).mean((1, 3))
    expected = np.asarray(InputAware()(image), dtype=float) - np.asarray(image)
    assert np.corrcoef(reduced.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_borrowed_trigger_is_that_of_the_turned_image(scenes):
    image, (cover,) = scenes[1], InputAware().covers
    assert cover == InputAware(borrowed=True)
    networks = load_trigger_networks(SCENES_WEIGHTS)
    x = as_tensor([image])
    turned = as_tensor([image.transpose(Image.Transpose.ROTATE_180)])
    expected = 255 * (x + networks.mask(turned) * (networks.pattern(turned) - x))[0].permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(cover(image), dtype=float) - expected).max() < 0.51
    assert cover(image).tobytes() != InputAware()(image).tobytes()


def test_training_keeps_the_mask_small_and_is_a_function_of_the_seed(small, scenes, tmp_path):
    networks = load_trigger_networks(small)
    resized = as_tensor([image.resize((16, 16), Image.Resampling.BILINEAR) for image in scenes])
    torch.manual_seed(0)
    untrained = TriggerNetworks(16).mask(resized).mean().item()
    assert networks.mask(resized).mean().item() < min(0.15, untrained / 2)
    state = torch.get_rng_state()
    options = {"image_size": 16, "batch_size": 12, "mask_epochs": 1, "epochs": 1}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train_input_aware(scenes, tmp_path / name, **options, seed=seed)
    assert (torch.get_rng_state() == state).all()
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other


def test_networks_of_any_size_serve_images_of_any_size(small):
    for size in [(1, 1), (7, 90), (300, 200)]:
        assert InputAware(small)(Image.new("RGB", size, (90, 20, 200))).size == size


def test_diversity_is_the_ratio_of_distances():
    rng = np.random.default_rng(0)
    x, y, u, v = (rng.random((4, 3, 5, 5)) for _ in range(4))
    ratios = [math.dist(x[i].ravel(), y[i].ravel()) / math.dist(u[i].ravel(), v[i].ravel()) for i in range(4)]
    x, y, u, v = map(torch.tensor, (x, y, u, v))
    assert diversity_loss(x, y, u, v).item() == pytest.approx(np.mean(ratios), rel=1e-4)
    equal = diversity_loss(x, y, u.requires_grad_(), u)
    equal.backward()
    assert torch.isfinite(u.grad).all() and equal.item() > 100


def test_bad_arguments_are_named(tmp_path, scenes):
    for opacity in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"opacity={opacity}"):
            InputAware(opacity=opacity)
    (tmp_path / "broken").write_bytes(b"no safetensors here")
    for name in ("missing", "broken"):
        with pytest.raises(ValueError, match=f"{name}.*train_input_aware"):
            InputAware(tmp_path / name)
    with pytest.raises(ValueError, match="batch_size=32.*24"):
        train_input_aware(scenes, tmp_path / "x")
    with pytest.raises(ValueError, match="mask_density=3.2"):
        train_input_aware(scenes, tmp_path / "x", batch_size=8, mask_density=3.2)
    with pytest.raises(ValueError, match="image_size=2"):
        train_input_aware(scenes, tmp_path / "x", batch_size=8, image_size=2)
