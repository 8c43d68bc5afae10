# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Views of the images of a batch, as a function of the seed, the epoch and each row's content.

Notable: a view is made wherever the pixels are. Where rows hold images, it is made before the processor sees them;
where a collator opens files by itself or rows are ready tensors, on the pixels of its batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.row_images import RowError
from ..data.rows import CHANNELS, find_images, replace_images
from .batches import is_pixels, perturb_pixels


class SeededViews:
    """
    Makes views of rows and of batches.

    Args:
        perturbation (`Callable[[PIL.Image.Image | np.ndarray, np.random.Generator], PIL.Image.Image | np.ndarray]`):
            Makes the view of one image: a PIL image, or an array of shape `(H, W)` or `(H, W, C)`.
        seed (`int`):
            Seed of all views.
    """

    def __init__(self, perturbation: Callable[[Any, np.random.Generator], Any], seed: int) -> None:
        self.perturbation = perturbation
        self.seed = seed
        # Shared memory: persistent workers keep their copy of this object from epoch to epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """Epoch whose views are drawn (`int`)."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """
        Choose the epoch whose views are drawn. Workers that already run, started by fork or by spawn, see it too.

        Args:
            epoch (`int`):
                Number of the epoch.
        """
        self._epoch.fill_(int(epoch))

    def generator(self, digest: bytes) -> np.random.Generator:
        """A fresh generator for a row with this digest (see [`row_digest`])."""
        state = hashlib.blake2b(f"{self.seed} {self.epoch} ".encode() + digest, digest_size=16).digest()
        # Named explicitly, since NumPy may change what `default_rng` gives
        return np.random.Generator(np.random.PCG64(int.from_bytes(state, "big")))

    def of_row(self, row: Any, digest: bytes) -> Any:
        """
        The view of one row: a copy whose images, as [`find_images`] finds them, are changed.

        Raises:
            [`RowError`]: if an image cannot be changed.
        """
        rng = self.generator(digest)
        return replace_images(row, lambda image: self._of_image(image, rng))

    def _of_image(self, image: Any, rng: np.random.Generator) -> Any:
        try:
            if isinstance(image, Image.Image):
                return self.perturbation(image, rng)
            if isinstance(image, torch.Tensor):
                pixels = image.detach().cpu()
                pixels = pixels.float() if pixels.dtype in (torch.bfloat16, torch.float16) else pixels
                return torch.from_numpy(self._of_array(pixels.numpy(), rng)).to(image)
            return self._of_array(image, rng)
        except ValueError as error:
            raise RowError(str(error)) from error

    def _of_array(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if pixels.ndim == 3 and pixels.shape[-1] not in CHANNELS:
            view = self.perturbation(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)), rng)
            return np.ascontiguousarray(np.moveaxis(view, -1, 0))
        return self.perturbation(pixels, rng)

    def of_pixels(
        self, batch: Mapping[str, Any], digests: Sequence[bytes], chosen: Sequence[bool] | None = None
    ) -> dict[str, Any]:
        """
        The views of the pixel tensors of a batch; see [`perturb_pixels`].

        Args:
            batch (`Mapping[str, Any]`):
                What a collator gives.
            digests (`Sequence[bytes]` of length `B`):
                Digest of each row.
            chosen (`Sequence[bool]` of length `B`, *optional*):
                The rows to make views of; by default all.

        Returns:
            `dict[str, Any]`: the changed tensors by their keys.

        Raises:
            `ValueError`: if the images of a row cannot be told apart in a tensor.
        """
        chosen = [True] * len(digests) if chosen is None else chosen
        generators = [
            self.generator(digest) if is_chosen else None for digest, is_chosen in zip(digests, chosen, strict=True)
        ]
        return {
            key: perturb_pixels(key, value, self.perturbation, generators)
            for key, value in batch.items()
            if is_pixels(key, value)
        }


def holds_pixels(batch: Mapping[str, Any]) -> bool:
    """Whether a batch has pixel tensors."""
    return any(is_pixels(key, value) for key, value in batch.items())


def has_image(row: Any) -> bool:
    """Whether a row holds an image that a view can be made of before it is collated."""
    return bool(find_images(row))
