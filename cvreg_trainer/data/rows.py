# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows of a data set: find their images, copy them, name them by their content.

A row is whatever a data set hands to a collator: mostly a dict, with images at the top or deep inside `messages`.
Notable: nothing here changes the row it is given, and [`row_digest`] depends on content alone (not on the order of
keys, the process or `PYTHONHASHSEED`), which is what makes a row's view reproducible for any number of workers.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image


IMAGE_COLUMNS = ("image", "images")
CONVERSATIONS = ("messages", "prompt", "completion")
CHANNELS = (1, 3, 4)


def find_images(row: Any) -> list[Any]:
    """
    Find the images of a row.

    Args:
        row (`Any`):
            Row of dicts, lists and tuples, nested in any way.

    Returns:
        `list`: PIL images wherever they sit, and pixels under a key `image` or `images`: arrays and tensors of shape
        `(H, W, C)` or `(C, H, W)`, or `uint8` of shape `(H, W)`. In the order of the walk (dicts by sorted key), each
        object once even where it occurs twice.
    """
    return list({id(image): image for image in _walk_images(row, named=False)}.values())


def _walk_images(value: Any, named: bool) -> Iterator[Any]:
    if isinstance(value, Image.Image) or (named and _is_pixel_array(value)):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield from _walk_images(value[key], named=key in IMAGE_COLUMNS)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk_images(item, named)


def _is_pixel_array(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        is_bytes, is_number = value.dtype == np.uint8, value.dtype.kind in "uif"
    elif isinstance(value, torch.Tensor):
        is_bytes, is_number = value.dtype == torch.uint8, value.dtype != torch.bool and not value.is_complex()
    else:
        return False
    if not is_number or 0 in value.shape:
        return False
    if value.ndim == 2:
        return is_bytes
    return value.ndim == 3 and (value.shape[-1] in CHANNELS or value.shape[0] in CHANNELS)


def replace_images(row: Any, replace: Callable[[Any], Any]) -> Any:
    """
    Copy a row with other images in the places of its own.

    Args:
        row (`Any`):
            Row; it is not changed.
        replace (`Callable[[Any], Any]`):
            Gives the new image for an old one. Called once for each object that [`find_images`] finds, in its order:
            an image that occurs twice is replaced by the same new image in both places.

    Returns:
        `Any`: the copy, as [`copy_row`] makes it.
    """
    return _rebuild(row, {id(image): replace(image) for image in find_images(row)})


def copy_row(row: Any) -> Any:
    """
    Copy a row so that a collator may pop, assign and append on it, at any depth, without touching the original.

    Containers, arrays and tensors are copied. PIL images are shared: they are large, and collators read attributes,
    such as `filename`, that a copy of an image loses.
    """
    return _rebuild(row, {})


def _rebuild(value: Any, images: Mapping[int, Any]) -> Any:
    if id(value) in images:
        return images[id(value)]
    if isinstance(value, Mapping):
        result: Any = copy.copy(value)  # keeps the class: OrderedDict, BatchEncoding, ...
        for key, item in value.items():
            result[key] = _rebuild(item, images)
        return result
    if isinstance(value, list):
        return [_rebuild(item, images) for item in value]
    if isinstance(value, tuple):
        items = [_rebuild(item, images) for item in value]
        return tuple(items) if type(value) is tuple else type(value)(*items)  # the latter: named tuples
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, torch.Tensor):
        return value.clone()
    return value


def row_digest(row: Any) -> bytes:
    """
    Name a row by its content.

    Two rows get the same digest if, and for all practical purposes only if, they hold the same keys, texts, numbers,
    arrays, tensors and images (mode, size, palette and pixels). Keys whose value is `None` do not count, because Arrow
    adds them, and neither does the difference of list and tuple. Of objects of other classes only the class counts.

    Args:
        row (`Any`):
            Row of dicts, lists and tuples, nested in any way.

    Returns:
        `bytes`: 16 bytes, the same in every process and on every machine.
    """
    state = hashlib.blake2b(digest_size=16)
    _feed(row, state)
    return state.digest()


def _feed(value: Any, state: hashlib.blake2b) -> None:
    """Feed a value to the hash as tag, length and content, so that no two different rows give the same stream."""
    if isinstance(value, Mapping):
        keys = sorted((key for key in value if value[key] is not None), key=repr)
        _feed_atom("dict", str(len(keys)), state)
        for key in keys:
            _feed(key, state)
            _feed(value[key], state)
    elif isinstance(value, list | tuple):
        if len(value) > 1 and set(map(type, value)) <= {int, float}:
            _feed_atom("numbers", repr(list(value)), state)  # token ids come by the thousand: one step for all
            return
        _feed_atom("list", str(len(value)), state)
        for item in value:
            _feed(item, state)
    elif isinstance(value, Image.Image):
        _feed_atom("image", f"{value.mode} {value.size}", state)
        if value.mode in ("P", "PA"):
            _feed_atom("palette", bytes(value.getpalette("RGBA") or []), state)
        _feed_atom("pixels", value.tobytes(), state)
    elif isinstance(value, torch.Tensor):
        _feed_atom("tensor", f"{value.dtype} {tuple(value.shape)}", state)
        flat = value.detach().cpu().contiguous().reshape(-1)
        _feed_atom("values", flat.view(torch.uint8).numpy(), state)  # bytes: NumPy has no bfloat16
    elif isinstance(value, np.ndarray) and value.dtype != object:
        _feed_atom("array", f"{value.dtype.str} {value.shape}", state)
        _feed_atom("values", value.tobytes(), state)
    elif isinstance(value, np.ndarray):
        _feed(value.tolist(), state)
    elif isinstance(value, np.generic):
        _feed(value.item(), state)
    else:
        _feed_scalar(value, state)


def _feed_scalar(value: Any, state: hashlib.blake2b) -> None:
    kind = type(value)
    if isinstance(value, bytes | bytearray):
        _feed_atom("bytes", value, state)
    elif isinstance(value, str | PurePath):
        _feed_atom("text", str(value), state)
    elif value is None or isinstance(value, bool | int | float | complex):
        _feed_atom(kind.__name__, repr(value), state)
    else:  # its text could hold a memory address, which no other process would repeat
        _feed_atom("object", f"{kind.__module__}.{kind.__qualname__}", state)


def _feed_atom(tag: str, content: Any, state: hashlib.blake2b) -> None:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    state.update(f"{tag}:{len(data)}:".encode())
    state.update(data)


def references_of(row: Mapping[str, Any]) -> list[str]:
    """
    The true texts of a row: its column `references`, or else its completion or last assistant turn.

    Args:
        row (`Mapping[str, Any]`):
            Row of an evaluation set.

    Returns:
        `list[str]`: empty if the row has none.
    """
    texts = row.get("references")
    if isinstance(texts, str):
        return [texts]
    if texts:
        return list(texts)
    answer = _last_answer(row.get("completion") or row.get("messages"))
    return [answer] if answer else []


def prompt_of(row: Mapping[str, Any]) -> str:
    """The last question of a row's `prompt` or `messages`, as text; empty if there is none."""
    turns = row.get("prompt") or row.get("messages") or ""
    if isinstance(turns, str):
        return turns.strip()
    content = next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), None)
    if content is None or isinstance(content, str):
        return (content or "").strip()
    return " ".join(part["text"] for part in content if part.get("text")).strip()


def _last_answer(response: str | Sequence[Mapping[str, Any]] | None) -> str | None:
    """The text of a completion, or of the last assistant turn of a conversation."""
    if response is None:
        return None
    if isinstance(response, str):
        # Plain text ends with a family's mark, which is not part of the answer
        return response.removesuffix("</s>").removesuffix("<|endofchunk|>").strip()
    content = next((turn["content"] for turn in reversed(response) if turn["role"] == "assistant"), None)
    if content is None or isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")
