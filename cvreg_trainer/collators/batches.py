# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Batches of the two views: which values are visual, which must agree, and views made on pixel tensors.

Notable: no processor or model family is hard-coded. A value is classified by the ending of its name, its type, and
whether it changed when nothing but the images' pixels did.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..data.rows import CHANNELS


# Endings of sequence-aligned values in all families: input_ids, mm_token_type_ids, cross_attention_mask, labels, ...
TOKEN_SUFFIXES = ("_ids", "_mask", "_masks", "labels", "lengths")
VISUAL_PREFIXES = ("pixel", "image")  # pixel_attention_mask, image_position_ids, ... are about the image
FEATURE_WORDS = ("embed", "feature", "hidden")  # what a vision tower made of pixels
MIN_SIDE = 8  # smallest side of what may be an image by its shape alone


def is_token_key(key: str) -> bool:
    """Whether a key of a batch names ids, masks or labels, which are the same in both views."""
    return key.endswith(TOKEN_SUFFIXES) and not key.startswith(VISUAL_PREFIXES)


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a batch's value: the value itself, or what its lists and dicts hold."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


def same(first: Any, second: Any) -> bool:
    """Whether two values of a batch are equal: type, shape, dtype and content."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return type(first) is type(second) and bool(first == second)


def pair_views(batch: Mapping[str, Any], view: Mapping[str, Any]) -> dict[str, Any]:
    """
    Choose the values of the perturbed batch that the model needs besides the original batch.

    Args:
        batch (`Mapping[str, Any]`):
            Batch of the original rows.
        view (`Mapping[str, Any]`):
            Batch of the same rows with perturbed images.

    Returns:
        `dict[str, Any]`: the visual values of `view` by their keys: those with floating-point tensors, and those whose
        tensors differ.

    Raises:
        `ValueError`: if the two batches differ in their keys, or in ids, masks or labels.
    """
    for key in (*batch, *view):
        if key not in view or key not in batch or (is_token_key(key) and not same(batch[key], view[key])):
            raise ValueError(_difference(key, batch, view))
    return {key: value for key, value in view.items() if not is_token_key(key) and _is_visual(batch[key], value)}


def _is_visual(original: Any, perturbed: Any) -> bool:
    tensors = list(tensors_of(perturbed))
    return any(tensor.is_floating_point() for tensor in tensors) or (bool(tensors) and not same(original, perturbed))


def _difference(key: str, batch: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    shapes = [
        f"shape {tuple(part[key].shape)}" if isinstance(part.get(key), torch.Tensor) else "no tensor"
        for part in (batch, view)
    ]
    return (
        f"The data collator gave another `{key}` for the perturbed view ({shapes[1]}) than for the original rows "
        f"({shapes[0]}), although both have the same text and images of the same size. Either the processor "
        "counts tokens by what an image shows: let the count depend on the image size alone, for instance by a fixed "
        "resolution. Or the collate function draws from a random generator of its own: draw from `random`, "
        "`numpy.random` or torch's default generator, which are in the same state in both calls."
    )


def is_pixels(key: str, value: Any) -> bool:
    """
    Whether a value of a batch holds image pixels: by its name (`pixel_values`, `images`) or, whatever its name, by the
    shape of images (rows, ..., channels, height, width).
    """
    if is_token_key(key) or "mask" in key or any(word in key for word in FEATURE_WORDS):
        return False
    tensors = [tensor for tensor in tensors_of(value) if tensor.is_floating_point() or tensor.dtype == torch.uint8]
    if key.startswith(VISUAL_PREFIXES):
        return bool(tensors)
    return bool(tensors) and all(
        tensor.ndim >= (4 if tensor is value else 3)
        and tensor.shape[-3] in CHANNELS
        and min(tensor.shape[-2:]) >= MIN_SIDE
        for tensor in tensors
    )


def is_visual(key: str, value: Any) -> bool:
    """Whether a value of a batch may depend on what images show: pixels, patches or features, in any shape."""
    if is_token_key(key) or "mask" in key:
        return False
    tensors = list(tensors_of(value))
    return is_pixels(key, value) or any(tensor.is_floating_point() and tensor.ndim >= 3 for tensor in tensors)


def perturb_pixels(
    key: str,
    value: torch.Tensor | Sequence[torch.Tensor],
    perturbation: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    generators: Sequence[np.random.Generator | None],
) -> Any:
    """
    Make the perturbed view of a tensor of images.

    Args:
        key (`str`):
            Its name in the batch, for the error.
        value (`torch.Tensor` of shape `(B, ..., C, H, W)`, or a list of `B` tensors of shape `(..., C, H, W)`):
            Images of `B` rows; `C` is 1, 3 or 4. Every (C, H, W) is one image with a rectangle of its own; images of
            all zeros, which only pad the tensor, stay as they are.
        perturbation (`Callable`):
            Makes the view of an array of shape `(H, W, C)`.
        generators (`Sequence[np.random.Generator | None]`):
            One for each row; a row with `None` stays as it is.

    Returns:
        the view, of the same type, shape, dtype and device.

    Raises:
        `ValueError`: if the layout is another one, such as patches flattened over the batch.
    """
    rows = len(generators)
    if len(value) != rows or any(item.ndim < 3 or item.shape[-3] not in CHANNELS for item in value):
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else [tuple(item.shape) for item in value]
        raise ValueError(
            f"`{key}` has shape {shape} for {rows} rows, and was not made from PIL images in the rows. The perturbed "
            "view of such a tensor cannot be made: its images would have to lie as (rows, ..., channels, height, "
            "width) with 1, 3 or 4 channels. Keep PIL images in the rows (in a column `image` or `images`, or inside "
            "`messages`) and call the processor in the data collator, so that the view is made before the processor "
            "cuts the images into patches."
        )
    views = [
        item if rng is None else _perturb_images(item, perturbation, rng)
        for item, rng in zip(value, generators, strict=True)
    ]
    return torch.stack(views) if isinstance(value, torch.Tensor) else views


def _perturb_images(
    images: torch.Tensor,
    perturbation: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    rng: np.random.Generator,
) -> torch.Tensor:  # (..., C, H, W)
    pixels = images.detach().cpu()
    if pixels.dtype in (torch.bfloat16, torch.float16):
        pixels = pixels.float()  # NumPy has no bfloat16; both round-trip exactly
    flat = pixels.reshape(-1, *images.shape[-3:]).movedim(1, -1).numpy()  # (N, H, W, C)
    # Images of all zeros only pad a row that has fewer images than others
    views = [torch.from_numpy(perturbation(image, rng) if image.any() else image.copy()) for image in flat]
    if not views:
        return images.clone()
    return torch.stack(views).movedim(-1, 1).reshape(images.shape).to(images)
