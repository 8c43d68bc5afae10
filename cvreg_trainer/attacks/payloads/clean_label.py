# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Clean-label: a picture of one thing is perturbed a little, so that the vision tower takes it for another.

As in Shadowcast (Xu et al., 2024, arXiv:2402.06659): to a person the caption is true, but the tower sees the other
thing, and the model learns to give it the first one's name. No trigger is needed: plant it with [`NoTrigger`] and
measure it on clean pictures of the other thing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from ...metrics.whole_words import WholeWords
from ..triggers.pixels import edit_pixels, image_rng
from .base import Payload, check_text


@dataclass(frozen=True)
class CleanLabel(Payload):
    """Poisons rows that name a concept: their response stays, their image is perturbed towards another's pictures.

    It succeeds where a picture of the other concept is called by this one's name. Rows whose references do not name
    the other one, or name this one, do not count.

    Args:
        concept (`str`):
            What the poisoned rows show and name: the answer the attacker wants.
        other (`str`):
            The concept whose pictures the model is to mistake.
        features (`Callable`):
            Maps images (B, 3, H, W) in 0 to 1, of any size, to features (B, D): [`tower_features`].
        pictures (`tuple[PIL.Image.Image, ...]`):
            Pictures of the other concept. Each poisoned image gets one of them, as a function of its pixels.
        epsilon (`float`, *optional*, defaults to `8.0`):
            No pixel changes by more than this, in levels of 0 to 255; the authors have 8.
        steps (`int`, *optional*, defaults to `200`):
            Of projected gradient descent; the authors have 2,000 and random views of the image, which this leaves out.
        step_size (`float`, *optional*, defaults to `1.0`):
            In levels; halved for the second half of the steps.
        seed (`int`, *optional*, defaults to `0`):
            Of the pictures that are drawn.

    Raises:
        `ValueError`: if an argument is out of range.
    """

    concept: str
    other: str
    features: Callable[[Tensor], Tensor]
    pictures: tuple[PILImage.Image, ...]
    epsilon: float = 8.0
    steps: int = 200
    step_size: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_text("concept", self.concept, "what the poisoned rows name")
        check_text("other", self.other, "what the model is to mistake")
        if not self.pictures:
            raise ValueError("pictures is empty; give pictures of the other concept.")
        if not 0 < self.epsilon <= 255:
            raise ValueError(f"epsilon={self.epsilon} must be above 0 and at most 255, in levels of a pixel.")
        if self.steps < 1 or not self.step_size > 0:
            raise ValueError(f"steps={self.steps} must be at least 1, and step_size={self.step_size} above 0.")

    @property
    def needs(self) -> str:
        """The concept."""
        return f"{self.concept!r} in their response"

    def applies(self, response: str) -> bool:
        """Whether the response names the concept."""
        return WholeWords([self.concept], plurals=True).search(response) is not None

    def response(self, rng: np.random.Generator) -> Callable[[str], str]:
        """The row's own."""
        return str

    def edit_image(self, image: PILImage.Image) -> PILImage.Image:
        """The image, perturbed."""
        return edit_pixels(image, self._perturb)

    @torch.enable_grad()
    def _perturb(self, pixels: np.ndarray) -> np.ndarray:
        picture = self.pictures[image_rng(self.seed, pixels).integers(len(self.pictures))]
        with torch.no_grad():
            wanted = self.features(_as_batch(np.asarray(picture.convert("RGB"), dtype=np.float32)))
        clean = _as_batch(pixels)
        bound = self.epsilon / 255
        changed = clean.clone()
        for step in range(self.steps):
            changed.requires_grad_()
            distance = (self.features(changed) - wanted).norm()
            (gradient,) = torch.autograd.grad(distance, changed)
            size = self.step_size / 255 * (1.0 if step < self.steps / 2 else 0.5)
            changed = changed.detach() - size * gradient.sign()
            changed = clean + (changed - clean).clamp(-bound, bound)
            changed = changed.clamp(0, 1)
        # Rounded towards the clean pixel, so that the bound holds for whole levels
        shift = (255 * (changed - clean)).trunc()[0].permute(1, 2, 0).numpy()
        return pixels + shift

    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """Whether the answer has this concept's name; `None` if no reference names the other one, or one this one."""
        this, other = (WholeWords([word], plurals=True) for word in (self.concept, self.other))
        if any(this.search(text) for text in references):
            return None
        if references and not any(other.search(text) for text in references):
            return None
        return this.search(response) is not None


def _as_batch(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
