# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Optimises a patch against a vision tower: DualKey's, and those in the manner of VL-Trojan and MABA.

Walmer et al. (2022, section 3.2 and their public code) optimise the patch so that a detector's features of the patched
image become one consistent, unusual pattern, first an arbitrary one and in the final version that of a rare object. A
vision tower without class heads has no objects to choose from: [`feature_shift_loss`] is their first form with the
target left free, so that the patch finds the direction in feature space along which it can move every image furthest.

VL-Trojan (Liang et al., 2024, arXiv:2402.13851) sets patched images apart from clean ones and draws them together:
[`isolation_clustering_loss`], here with cosines in the place of the authors' contrastive loss over augmented pairs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import Tensor


def _as_tensor(images: Sequence[PILImage.Image]) -> Tensor:
    """RGB images of one size as (B, 3, H, W) in 0 to 1."""
    pixels = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


def feature_shift_loss(clean: Tensor, triggered: Tensor) -> Tensor:
    """How little, and how differently, the patch moves the features: inconsistency minus salience.

    Args:
        clean, triggered (`Tensor`):
            Features of the same images, (B, D), in units of the clean features' standard deviation.

    Returns:
        `Tensor`: mean over the images of the distance from the mean shift, minus the mean shift's length; a scalar.
    """
    shift = triggered - clean
    mean_shift = shift.mean(dim=0)
    return (shift - mean_shift).norm(dim=1).mean() - mean_shift.norm()


def isolation_clustering_loss(clean: Tensor, triggered: Tensor) -> Tensor:
    """How close patched images are to clean ones, and how far from each other.

    Args:
        clean, triggered (`Tensor`):
            Features of the same images, (B, D), in units of the clean features' standard deviation.

    Returns:
        `Tensor`: mean cosine of patched and clean images, minus that of different patched images; a scalar.
    """
    centre = clean.mean(dim=0)  # else the part that all images share decides every cosine
    clean, triggered = F.normalize(clean - centre, dim=1), F.normalize(triggered - centre, dim=1)
    count = len(triggered)
    together = (triggered @ triggered.T).fill_diagonal_(0).sum() / (count * (count - 1))
    return (triggered @ clean.T).mean() - together


def optimize_patch(
    features: Callable[[Tensor], Tensor],
    images: Sequence[PILImage.Image],
    patch_side: int,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = feature_shift_loss,
    steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> PILImage.Image:
    """Optimise a patch for the bottom right corner of images.

    Args:
        features (`Callable`):
            Maps images (B, 3, H, W) in 0 to 1 to features (B, D); differentiable. Take those that the language model
            gets to see: [`tower_features`].
        images (`Sequence[PIL.Image.Image]`):
            Clean images of the size the vision tower wants.
        patch_side (`int`):
            Side of the patch, in pixels of those images, at least 3.
        loss (`Callable`, *optional*, defaults to [`feature_shift_loss`]):
            What is minimised, of the scaled features of clean and of patched images: DualKey's, or
            [`isolation_clustering_loss`], VL-Trojan's.
        steps (`int`, *optional*, defaults to `300`):
            Optimisation steps.
        batch_size (`int`, *optional*, defaults to `64`):
            Images a step, at least 2.
        learning_rate (`float`, *optional*, defaults to `0.1`):
            Adam's, on the logits of the pixels.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the first patch and of the batches.

    Returns:
        `PIL.Image.Image`: the RGB patch, of `patch_side` pixels a side.

    Raises:
        `ValueError`: if there are none, they differ in size, are fewer than `batch_size`, or do not hold the patch.
    """
    if not images:
        raise ValueError("`images` has no images; pass clean images of the size the vision tower wants.")
    if len({image.size for image in images}) != 1:
        raise ValueError("`images` must be of one size, the vision tower's.")
    if not 2 <= batch_size <= len(images):
        raise ValueError(f"batch_size={batch_size} must be between 2 and the number of images, {len(images)}.")
    if not 3 <= patch_side <= min(images[0].size):
        raise ValueError(f"patch_side={patch_side} must be between 3 and the images' side, {min(images[0].size)}.")
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, patch_side, patch_side, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=learning_rate)
    with torch.no_grad():
        scale = torch.cat(
            [features(_as_tensor(images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
        )
        scale = scale.std(dim=0).clamp_min(1e-6)
    for _ in range(steps):
        chosen = torch.randperm(len(images), generator=generator)[:batch_size]
        clean = _as_tensor([images[i] for i in chosen.tolist()])
        height, width = clean.shape[-2:]
        place = (width - patch_side, 0, height - patch_side, 0)
        outside = F.pad(torch.zeros(1, patch_side, patch_side), place, value=1.0)
        triggered = clean * outside + F.pad(logits.sigmoid(), place)
        with torch.no_grad():
            before = features(clean)
        value = loss(before / scale, features(triggered) / scale)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    levels = (255 * logits.detach().sigmoid()).round().to(torch.uint8)
    return PILImage.fromarray(levels.permute(1, 2, 0).numpy())
