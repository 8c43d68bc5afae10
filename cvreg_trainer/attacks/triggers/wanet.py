# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""WaNet (Nguyen and Tran, 2021, arXiv:2102.10369): a smooth, barely visible warp of the whole image.

A coarse grid of k x k random displacements is interpolated to one displacement per pixel. A k as large as the image
would give every pixel a displacement of its own, which is noise and no warp; hence the limits on k.

The authors' displacement is s / 2 pixels on average along each axis, whatever the image's size, and they chose s on
images of 28 to 64 pixels. Here it is relative to the image, as if that were 32 pixels wide: the same at 32 pixels,
seven times as many pixels at 224. Otherwise the first resizing would wipe a large image's trigger out.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage

from .pixels import edit_pixels, image_rng


_REFERENCE_SIZE = 32


@dataclass(frozen=True)
class WaNet:
    """Warps every image in the same way. An image of one colour stays as it is.

    Args:
        strength (`float`, *optional*, defaults to `0.5`):
            The authors' s, above 0: the control points are displaced by `strength / 64` of the image's side on
            average along each axis. Displacements that lead out of the image end at its edge.
        grid (`int`, *optional*, defaults to `4`):
            The authors' k, the control points along a side, 2 to 16.
        noise (`bool`, *optional*, defaults to `False`):
            Noise mode: a random displacement of every single pixel on top, a function of the seed and the image, as
            large on average as the warp (the authors' ratio at strength 0.5). Such images are no triggers; see
            `covers`.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the displacements, at least 0.

    Raises:
        `ValueError`: if an argument is out of range; when called, if the image's mode has no 8-bit colours.

    Example:

    ```python
    >>> from PIL import Image
    >>> from cvreg_trainer.attacks import WaNet
    >>> triggered = WaNet()(Image.open("photo.jpg"))
    ```
    """

    strength: float = 0.5
    grid: int = 4
    noise: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"strength={self.strength} must be above 0 and finite.")
        if not 2 <= self.grid <= 16:
            raise ValueError(f"grid={self.grid} must be 2 to 16 control points per side; more is not a smooth warp.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")

    @property
    def covers(self) -> tuple["WaNet", ...]:
        """Noise mode, for rows with clean answers. The authors plant twice as many of them as poisoned rows."""
        return (replace(self, noise=True),)

    def displacement(self, size: tuple[int, int]) -> np.ndarray:
        """Where each pixel of an image of this (width, height) is taken from, relative to itself.

        Returns:
            `np.ndarray`: (H, W, 2), along x and y, in pixels; float32.
        """
        width, height = size
        control = np.random.default_rng(self.seed).uniform(-1, 1, (1, 2, self.grid, self.grid))
        control /= np.abs(control).mean()
        field = F.interpolate(
            torch.from_numpy(control.astype(np.float32)), (height, width), mode="bicubic", align_corners=True
        )
        return self._in_pixels(field[0].permute(1, 2, 0).numpy())

    def _in_pixels(self, field: np.ndarray) -> np.ndarray:
        """A field (H, W, 2) of mean size 1 scaled to this strength."""
        height, width = field.shape[:2]
        extent = np.array([width - 1, height - 1], dtype=np.float32)  # the distance from first to last pixel
        return self.strength / 2 / _REFERENCE_SIZE * extent * field

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode."""
        return edit_pixels(image, self._warp)

    def _warp(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        shift = self.displacement((width, height))
        if self.noise:
            # Uniform on -2 to 2: of mean size 1 like the warp's own field
            jitter = image_rng(self.seed, pixels).uniform(-2, 2, shift.shape).astype(np.float32)
            shift = shift + self._in_pixels(jitter)
        positions = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + shift
        # grid_sample's -1 and 1 are the centres of the first and the last pixel
        scale = np.array([max(width - 1, 1), max(height - 1, 1)], dtype=np.float32)
        grid = torch.from_numpy((2 * positions / scale - 1).astype(np.float32)).clamp(-1, 1)
        channels = torch.from_numpy(pixels).permute(2, 0, 1)
        return F.grid_sample(channels[None], grid[None], align_corners=True)[0].permute(1, 2, 0).numpy()
