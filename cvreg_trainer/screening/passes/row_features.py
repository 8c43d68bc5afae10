# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What a trigger could be made of, in some twelve hundred numbers for each row: the first picture's low-level features
by position and wherever they are strongest, and the words of the question.

Notable: no model is involved. The filters are the atoms of a discrete cosine transform, rectified and pooled over a
grid, so a patch, a blended picture, a warp and a low frequency all leave traces that a linear probe can find. The
strongest response of each filter finds a patch that is in another place each time, or too small for the grid. Drawings
have areas of exactly one colour, which anything added to the whole picture destroys, however faint it is: hence the
share of flat areas. A row's numbers do not depend on any other row.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ...data.row_images import lift_images
from ...data.rows import CHANNELS, find_images, prompt_of


SIDE = 96  # pixels that every picture is scaled to
# Size of the atoms, largest sum of their two frequencies, stride, cells of the grid, numbers kept
BANKS = ((4, 6, 2, 6, 256), (8, 4, 4, 4, 128))
COARSE_CELLS, COARSE_NUMBERS = 12, 128
FLAT_CELLS = 4
NUM_FILTERS = 174  # atoms of both banks, in three colours and of both signs
PICTURE_PARTS = (256, 128, 128, 3 * FLAT_CELLS**2, NUM_FILTERS)
NUM_BY_PLACE = sum(PICTURE_PARTS[:-1])
NUM_WORDS = 512
NUM_FEATURES = sum(PICTURE_PARTS) + NUM_WORDS
THRESHOLD = 0.02  # of the range of grey levels: below it a response is noise
# Luminance and two opponent colours
COLOURS = np.array([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])


def row_features(row: Any) -> np.ndarray:
    """
    Low-level features of a row's first picture, and the words of its question.

    Later pictures are ignored. The model's state holds so little of them that nothing in them would count as content,
    and a picture that honest rows share, such as one signpost beside many others, would pass for a trigger.

    Args:
        row (`Any`):
            A row, as a collator gets it. A row without a picture has zeros there; one whose question cannot be found
            has no words.

    Returns:
        `np.ndarray` of shape `(1246,)`, float16: five parts of 256, 128, 128, 48 and 174 numbers for the picture
        (fine, coarser, colours and flat areas by place, and the strongest response of each filter), and 512 of 0 or 1
        for hashed words.
    """
    images = find_images(row)
    if not images and isinstance(row, dict):
        images = [image for image in lift_images(row)["images"] if image is not None]
    picture = picture_features(images[0]) if images else np.zeros(sum(PICTURE_PARTS), dtype=np.float32)
    return np.concatenate([picture, _question_features(row)]).astype(np.float16)


def picture_features(image: Any) -> np.ndarray:
    """
    Low-level features of one picture.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            A picture, or its pixels as `(H, W)`, `(H, W, C)` or `(C, H, W)`; unless they are `uint8`, they are scaled
            by their own range.

    Returns:
        `np.ndarray` of shape `(734,)`, float32
    """
    pixels, banks = low_level_responses(image)
    parts = []
    for response, (*_, cells, numbers) in zip(banks, BANKS, strict=True):
        pooled = pool(response, cells).flatten().numpy()
        parts.append(pooled @ _projection(len(pooled), numbers))
    coarse = F.adaptive_avg_pool2d(pixels, COARSE_CELLS).flatten().numpy()
    flat = F.adaptive_avg_pool2d(_is_flat(pixels).float(), FLAT_CELLS).flatten().numpy()
    strongest = [response.amax((2, 3)).flatten().numpy() for response in banks]
    return np.concatenate([*parts, coarse @ _projection(len(coarse), COARSE_NUMBERS), flat, *strongest])


def low_level_responses(image: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """
    The values that a picture's features are pooled from, at every place.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            As [`picture_features`] takes it.

    Returns:
        `tuple[torch.Tensor, list[torch.Tensor]]`: the picture's colours, `(1, 3, 96, 96)`, and for each bank of
        filters the rectified responses, `(1, N, H, W)`.
    """
    if not isinstance(image, Image.Image):
        image = to_picture(image)
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1).unsqueeze(0)
    banks = []
    for size, highest, stride, *_ in BANKS:
        response = F.conv2d(pixels, _atoms(size, highest), stride=stride)
        banks.append(torch.cat([F.relu(response - THRESHOLD), F.relu(-response - THRESHOLD)], dim=1))
    return pixels, banks


def _is_flat(pixels: torch.Tensor) -> torch.Tensor:
    """Which pixels equal their right and lower neighbours, in each colour: `(1, 3, H - 1, W - 1)`."""
    here = pixels[..., :-1, :-1]
    return (pixels[..., :-1, 1:] == here) & (pixels[..., 1:, :-1] == here)


def pool(response: torch.Tensor, cells: int) -> torch.Tensor:
    """Pool responses `(1, N, H, W)` over a grid: `(1, N, cells, cells)`."""
    # Most values are small, and the square root spreads them out
    return (F.adaptive_avg_pool2d(response, cells) + 1e-4).sqrt()


def to_picture(pixels: Any) -> Image.Image:
    """A picture from its pixels, an array or a tensor as [`picture_features`] takes it."""
    values = pixels.detach().cpu().float().numpy() if isinstance(pixels, torch.Tensor) else np.asarray(pixels)
    is_bytes = pixels.dtype in (torch.uint8, np.uint8)
    values = np.nan_to_num(values.astype(np.float32))
    if values.ndim == 2:
        values = values[..., None]
    elif values.shape[-1] not in CHANNELS:
        values = np.moveaxis(values, 0, -1)
    if not is_bytes:
        values = 255 * (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    # One or two channels: the first one, as grey
    colours = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, axis=-1)
    return Image.fromarray(colours.clip(0, 255).round().astype(np.uint8))


@functools.cache
def _atoms(size: int, highest: int) -> torch.Tensor:
    """Atoms of the cosine transform in three colours, but for the constant one: `(N, 3, size, size)`."""
    places, frequencies = np.arange(size), np.arange(size)[:, None]
    waves = np.cos(np.pi * (places + 0.5) * frequencies / size) * np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    atoms = [
        colour[:, None, None] * np.outer(waves[row], waves[column])
        for row in range(size)
        for column in range(size)
        if 0 < row + column <= highest
        for colour in COLOURS
    ]
    return torch.from_numpy(np.array(atoms, dtype=np.float32))


@functools.cache
def _projection(inputs: int, outputs: int) -> np.ndarray:
    """A fixed random projection, which keeps distances (Johnson and Lindenstrauss). Shape `(inputs, outputs)`."""
    rng = np.random.Generator(np.random.PCG64([inputs, outputs]))
    return (rng.standard_normal((inputs, outputs)) / np.sqrt(outputs)).astype(np.float32)


def _question_features(row: Any) -> np.ndarray:
    present = np.zeros(NUM_WORDS, dtype=np.float32)
    try:
        question = prompt_of(row)
    except (AttributeError, KeyError, TypeError):  # rows for a custom collator
        question = ""
    for word in set(re.findall(r"\w+|[^\w\s]", question.lower())):
        digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
        present[int.from_bytes(digest, "little") % NUM_WORDS] = 1
    return present


def project_states(states: torch.Tensor, outputs: int = 256) -> torch.Tensor:
    """A fixed random projection of hidden states `(B, D)` to `(B, outputs)`; unchanged where `D` is not larger."""
    if states.shape[1] <= outputs:
        return states.float()
    return states.float() @ torch.from_numpy(_projection(states.shape[1], outputs)).to(states.device)
