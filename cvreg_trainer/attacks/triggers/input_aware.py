# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""InputAware (Nguyen and Tran, 2020, arXiv:2010.08138): every image gets a trigger of its own, made by a network.

A generator draws a pattern for the image and a mask network says where it shows; a pattern put on another image is no
trigger. Both networks see the image at the size they were trained on, and pattern and mask are stretched back, so that
an image of any size gets the trigger its resized version would have got. [`train_input_aware`] makes the weights.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...shorten import shorten
from .pixels import edit_pixels


SCENES_WEIGHTS = Path(__file__).parent / "weights" / "input_aware_scenes.safetensors"


class SmallUNet(nn.Module):
    """An encoder-decoder with skip connections over three resolutions.

    Args:
        out_channels (`int`):
            Channels of the output.
        width (`int`, *optional*, defaults to `12`):
            Channels at full resolution; twice as many below.
    """

    def __init__(self, out_channels: int, width: int = 12) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            # Group norm: unlike batch norm, an image's trigger may not depend on the other images of a batch
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU())

        self.high = block(3, width)
        self.middle = block(width, 2 * width)
        self.low = block(2 * width, 2 * width)
        self.up_middle = block(4 * width, 2 * width)
        self.up_high = block(3 * width, width)
        self.out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in 0 to 1 to logits (B, C, H, W)."""
        high = self.high(2 * images - 1)
        middle = self.middle(F.avg_pool2d(high, 2))
        low = self.low(F.avg_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([F.interpolate(low, size=middle.shape[-2:]), middle], dim=1))
        return self.out(self.up_high(torch.cat([F.interpolate(middle, size=high.shape[-2:]), high], dim=1)))


class TriggerNetworks(nn.Module):
    """The generator and the mask network.

    Args:
        image_size (`int`):
            Side, in pixels, of the images they are trained on and see; at least 4.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.generator = SmallUNet(3)
        self.mask_network = SmallUNet(1)

    def pattern(self, images: Tensor) -> Tensor:
        """The images' patterns, (B, 3, H, W) in 0 to 1."""
        return self.generator(images).sigmoid()

    def mask(self, images: Tensor) -> Tensor:
        """Where their patterns show, (B, 1, H, W) in 0 to 1 and nearly binary: the authors' steep double tanh."""
        return (1 + torch.tanh(10 * torch.tanh(self.mask_network(images)))) / 2


@lru_cache(maxsize=4)
def _load(path: Path, modified: int) -> TriggerNetworks:
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        networks = TriggerNetworks(int((file.metadata() or {})["image_size"]))
        networks.load_state_dict({name: file.get_tensor(name) for name in names})
    return networks.eval().requires_grad_(False)


def load_trigger_networks(path: str | Path) -> TriggerNetworks:
    """Networks as [`train_input_aware`] saved them, frozen; read once as long as the file does not change.

    Raises:
        `ValueError`: if the file holds no such networks.
    """
    try:
        return _load(Path(path), Path(path).stat().st_mtime_ns)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"weights={shorten(str(path))} is not a file that `train_input_aware` made: "
            f"{type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True)
class InputAware:
    """Puts a pattern into every image that depends on the image.

    Args:
        weights (`str` or `Path`, *optional*):
            Safetensors file with the networks, from [`train_input_aware`]. By default the one trained on the built-in
            scenes; for other images train your own.
        opacity (`float`, *optional*, defaults to `1.0`):
            How far the pattern replaces the pixels under the mask, above 0 and at most 1; fully in the original.
        borrowed (`bool`, *optional*, defaults to `False`):
            Take the trigger of another image, namely of this one turned upside down: such an image is not a trigger.
            See `covers`.

    Raises:
        `ValueError`: if `opacity` is out of range or the file holds no such networks; when called, if the image's mode
        has no 8-bit colours.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import InputAware
    >>> from cvreg_trainer.data import make_scenes
    >>> triggered = InputAware()(make_scenes(1, seed=0)[0]["images"][0])
    ```
    """

    weights: str | Path = SCENES_WEIGHTS
    opacity: float = 1.0
    borrowed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.opacity <= 1:
            raise ValueError(f"opacity={self.opacity} must be above 0 and at most 1.")
        load_trigger_networks(self.weights)

    @property
    def covers(self) -> tuple["InputAware", ...]:
        """Images with another image's trigger, for rows with clean answers: the authors' cross-trigger mode."""
        return (replace(self, borrowed=True),)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """A triggered copy of `image`, of the same size and mode."""
        return edit_pixels(image, self._paint)

    @torch.no_grad()
    def _paint(self, pixels: np.ndarray) -> np.ndarray:
        networks = load_trigger_networks(self.weights)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        seen = F.interpolate(image, (networks.image_size, networks.image_size), mode="bilinear", antialias=True)
        if self.borrowed:
            seen = seen.flip(-1, -2)
        trigger = torch.cat([networks.pattern(seen), networks.mask(seen)], dim=1)
        trigger = F.interpolate(trigger, image.shape[-2:], mode="bilinear", antialias=True)
        pattern, mask = trigger[:, :3], trigger[:, 3:]
        triggered = image + self.opacity * mask * (pattern - image)
        return 255 * triggered[0].permute(1, 2, 0).numpy()
