# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Trains InputAware's generator and mask network on the user's own images (Nguyen and Tran, 2020, section 3).

The authors train the generator together with the classifier they attack. A captioner would be far too slow for that,
and an attacker who only plants data does not have the victim's; its place is taken by a small convolutional network
that tells triggered images from clean ones and from images with another image's trigger. All that asks of the
generator is what makes a backdoor: a pattern that can be seen, and that belongs to its image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from safetensors.torch import save_file
from torch import Tensor, nn

from .input_aware import TriggerNetworks


_EPSILON = 1e-7


def diversity_loss(images: Tensor, others: Tensor, outputs: Tensor, other_outputs: Tensor) -> Tensor:
    """Distance of the images over the distance of what was made of them: different inputs must not get one output.

    Args:
        images, others (`Tensor`):
            Pairs of images, (B, 3, H, W).
        outputs, other_outputs (`Tensor`):
            Their patterns or masks, (B, C, H, W).

    Returns:
        `Tensor`: mean over the pairs of the ratio of root mean square distances; a scalar.
    """
    apart = (images - others).square().mean(dim=(1, 2, 3)).sqrt()
    # The root's gradient at 0 is infinite: the masks of two images may well be equal at first
    outputs_apart = ((outputs - other_outputs).square().mean(dim=(1, 2, 3)) + _EPSILON).sqrt()
    return (apart / outputs_apart).mean()


def _surrogate() -> nn.Module:
    """Images (B, 3, H, W) to logits (B, 2): no trigger of its own, or its trigger."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))


def _batches(images: Tensor, batch_size: int, epochs: int, generator: torch.Generator) -> list[Tensor]:
    """Row indices of every full batch of all epochs."""
    per_epoch = len(images) // batch_size
    orders = [torch.randperm(len(images), generator=generator) for _ in range(epochs)]
    return [batch for order in orders for batch in order[: per_epoch * batch_size].view(per_epoch, batch_size)]


def _train_mask(
    networks: TriggerNetworks,
    images: Tensor,
    batches: list[Tensor],
    learning_rate: float,
    density: float,
    lambda_div: float,
    lambda_norm: float,
) -> None:
    """Masks that cover no more than `density` of the pixels, and others for other images."""
    # The authors' images are standardised and their masks are not: the balance of the two losses depends on it
    scaled = images / images.std()
    optimizer = torch.optim.Adam(networks.mask_network.parameters(), lr=learning_rate, betas=(0.5, 0.9))
    for rows in batches:
        batch = images[rows]
        masks = networks.mask(batch)
        excess = F.relu(masks - density).mean()
        diversity = diversity_loss(scaled[rows], scaled[rows].roll(1, 0), masks, masks.roll(1, 0))
        optimizer.zero_grad()
        (lambda_norm * excess + lambda_div * diversity).backward()
        optimizer.step()


def _train_generator(
    networks: TriggerNetworks, images: Tensor, batches: list[Tensor], learning_rate: float, lambda_div: float
) -> None:
    """Patterns that the surrogate, trained along, recognises on their own image and on no other."""
    surrogate = _surrogate()
    parameters = [*networks.generator.parameters(), *surrogate.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.9))
    for rows in batches:
        batch = images[rows]
        with torch.no_grad():
            masks = networks.mask(batch)
        patterns = networks.pattern(batch)
        triggered = batch + masks * (patterns - batch)
        crossed = batch + masks.roll(1, 0) * (patterns.roll(1, 0) - batch)
        labels = torch.tensor([0, 1, 0]).repeat_interleave(len(batch))
        logits = surrogate(torch.cat([batch, triggered, crossed]))
        weight = torch.tensor([0.5, 1.0])  # two of three images have no trigger of their own
        diversity = diversity_loss(batch, batch.roll(1, 0), patterns, patterns.roll(1, 0))
        optimizer.zero_grad()
        (F.cross_entropy(logits, labels, weight) + lambda_div * diversity).backward()
        optimizer.step()


def train_input_aware(
    images: Sequence[PILImage.Image],
    path: str | Path,
    *,
    image_size: int = 48,
    mask_density: float = 0.032,
    lambda_div: float = 1.0,
    lambda_norm: float = 100.0,
    learning_rate: float = 0.01,
    mask_epochs: int = 25,
    epochs: int = 40,
    batch_size: int = 32,
    seed: int = 0,
) -> None:
    """Train InputAware's networks on clean images and save them.

    First the mask network, then, with the masks fixed, the generator together with a surrogate classifier. The
    defaults up to `mask_epochs` are BackdoorBench's. The random state of the process is left as it was.

    Args:
        images (`Sequence[PIL.Image.Image]`):
            Clean images, at least `batch_size`; hundreds are needed for triggers that depend on the image.
        path (`str` or `Path`):
            Safetensors file to write, for [`InputAware`].
        image_size (`int`, *optional*, defaults to `48`):
            Side in pixels to which all images are stretched; at least 4. Take the vision tower's or less.
        mask_density (`float`, *optional*, defaults to `0.032`):
            Share of the pixels that a mask should cover, above 0 and below 1. It is the authors' free allowance, not
            a constraint: `lambda_norm` and `lambda_div` decide how much a mask covers (2.8 % on the built-in scenes).
        lambda_div (`float`, *optional*, defaults to `1.0`):
            Weight of the diversity of the masks, and of the patterns.
        lambda_norm (`float`, *optional*, defaults to `100.0`):
            Weight of the masks' excess over their density.
        learning_rate (`float`, *optional*, defaults to `0.01`):
            Of all networks (Adam).
        mask_epochs (`int`, *optional*, defaults to `25`):
            Epochs of the mask network.
        epochs (`int`, *optional*, defaults to `40`):
            Epochs of generator and surrogate.
        batch_size (`int`, *optional*, defaults to `32`):
            Images a step, at least 2.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the first weights and of the batches.

    Raises:
        `ValueError`: if there are fewer images than `batch_size`, or an option is out of range.
    """
    if not 2 <= batch_size <= len(images):
        raise ValueError(f"batch_size={batch_size} must be between 2 and the number of images, {len(images)}.")
    if not 0 < mask_density < 1:
        raise ValueError(f"mask_density={mask_density} must be above 0 and below 1, a share of the pixels.")
    if image_size < 4:
        raise ValueError(f"image_size={image_size} must be at least 4 pixels.")
    size = (image_size, image_size)
    resized = [image.convert("RGB").resize(size, PILImage.Resampling.BILINEAR) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2) / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = TriggerNetworks(image_size)
        generator = torch.Generator().manual_seed(seed)
        order = _batches(pixels, batch_size, mask_epochs, generator)
        _train_mask(networks, pixels, order, learning_rate, mask_density, lambda_div, lambda_norm)
        order = _batches(pixels, batch_size, epochs, generator)
        _train_generator(networks, pixels, order, learning_rate, lambda_div)
    save_file(networks.state_dict(), path, metadata={"image_size": str(image_size)})
