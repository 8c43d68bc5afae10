# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The images that a row holds or names, opened and brought into the one form that TRL's vision collators take.

Rows from practice hold images as PIL images, encoded bytes, paths or base64 text, in a column or inside `messages` in
the spelling of half a dozen APIs. Notable: nothing is ever fetched. An address is an error that names it, since data
that are to be searched for backdoors should not decide what this machine downloads.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image, ImageOps

from ..shorten import shorten
from .rows import CONVERSATIONS, IMAGE_COLUMNS, row_digest


# How content parts say that they are an image, and under which keys they hold or name it: transformers' chat
# templates, the APIs of OpenAI, and Qwen's utilities
IMAGE_PARTS = ("image", "image_url", "input_image")
SOURCE_KEYS = ("image", "image_url", "url", "path", "bytes", "base64")
_ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")


class RowError(ValueError):
    """What is wrong with one row. The message does not say which row: whoever knows its number puts it in front."""


def is_address(text: str) -> bool:
    """Whether a text is the address of something on a network (`https://...`, `s3://...`)."""
    return _ADDRESS.match(text) is not None


@contextmanager
def reading_image(name: str = "its image") -> Iterator[None]:
    """
    Turn whatever Pillow raises for a broken image into a [`RowError`].

    Args:
        name (`str`, *optional*, defaults to `"its image"`):
            How the error calls the image.
    """
    try:
        yield
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError(f"{name} is too large to be decoded safely: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = str(error).split(" <")[0]  # without the address of a buffer
        raise RowError(f"{name} cannot be read: {reason}") from error


@contextmanager
def in_column(name: str) -> Iterator[None]:
    """Put a column's name in front of a [`RowError`]."""
    try:
        yield
    except RowError as error:
        raise RowError(f"column `{name}`: {error}") from error


def open_image(source: Any) -> Any:
    """
    Open an image.

    Args:
        source (`Any`):
            A PIL image, an array or a tensor, which are returned as they are; encoded bytes; a path, a `file:` URI, a
            `data:` URI or base64 text; or a mapping that holds one of them, such as `{"bytes": ..., "path": ...}`
            (the form of `datasets`) or `{"url": ...}`. Relative paths are relative to the working directory.

    Returns:
        the image; `None` for `None` and for a mapping without any value. What is opened from text is turned upright
        and converted to RGB, as transformers' processors do with it.

    Raises:
        [`RowError`]: if the image cannot be read, is too large (`PIL.Image.MAX_IMAGE_PIXELS`), or is an address.
    """
    if isinstance(source, Mapping):
        given = [source[key] for key in ("bytes", *SOURCE_KEYS) if source.get(key) is not None]
        return open_image(given[0]) if given else None
    if isinstance(source, (bytes, bytearray)):
        with reading_image("its image"):
            return load_image(io.BytesIO(source))
    if isinstance(source, (list, tuple)):
        raise RowError(f"an image is given as a list, {shorten(source)}; give each image once, not in lists of lists")
    if not isinstance(source, (str, PurePath)):
        _refuse_what_is_not_finite(source)
        return source
    with reading_image(f"the image {shorten(str(source))}"):
        return ImageOps.exif_transpose(load_image(_locate(str(source)))).convert("RGB")


def _refuse_what_is_not_finite(image: Any) -> None:
    is_float = image.mode == "F" if isinstance(image, Image.Image) else "float" in str(getattr(image, "dtype", ""))
    # In float32, as NumPy has no bfloat16
    if is_float and not np.isfinite(np.asarray(image.float() if hasattr(image, "float") else image)).all():
        raise RowError("its image has pixels that are not finite numbers")


def load_image(file: Any) -> Image.Image:
    """Open a file or stream with Pillow and decode all of it, unless it has more pixels than Pillow's limit."""
    image = Image.open(file)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, more than {limit:,}")
    image.load()
    return image


def decode_text(text: str) -> bytes | None:
    """
    The encoded image that a text holds in itself: a `data:` URI, or base64 text of some length.

    Args:
        text (`str`):
            A path, an address, or the image.

    Returns:
        `bytes`: not decoded any further; `None` if the text is something else.

    Raises:
        [`RowError`]: if a `data:` URI is broken.
    """
    if text.startswith("data:"):
        head, _, body = text.partition(",")
        with reading_image(f"the image {shorten(text)}"):
            return base64.b64decode(body) if head.endswith(";base64") else unquote(body).encode("latin-1")
    if not _BASE64.fullmatch(text):
        return None
    body = "".join(text.split())
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4))
    except binascii.Error:
        return None


def _locate(text: str) -> Any:
    """The file, or the bytes, that a text stands for."""
    if is_address(text):
        raise RowError(
            f"the image is given as the address {shorten(text)}, which is not fetched. Download it and give its path"
        )
    path = Path(unquote(urlsplit(text).path) if text.lower().startswith("file:") else text)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # a name too long for the file system, or with a null byte
        pass
    encoded = decode_text(text)
    if encoded is not None:
        return io.BytesIO(encoded)
    folder = shorten(str(Path.cwd()))
    raise RowError(f"the image {shorten(text)} is not a file; relative paths are relative to {folder}")


def image_source(part: Any) -> Any:
    """
    What a part of a message's content holds or names as an image.

    Args:
        part (`Any`):
            One entry of a message's content.

    Returns:
        the image, path, bytes or mapping; `None` if the part is not an image, or only a placeholder for one.
    """
    if not is_image_part(part):
        return None
    given = (part[key] for key in SOURCE_KEYS if part.get(key) is not None)
    return next((source for source in given if not isinstance(source, Mapping) or any(source.values())), None)


def is_image_part(part: Any) -> bool:
    """Whether an entry of a message's content stands for an image."""
    return isinstance(part, Mapping) and part.get("type") in IMAGE_PARTS


def lift_images(row: Mapping[str, Any], open_columns: bool = True) -> dict[str, Any]:
    """
    Bring a row into the one form that TRL's vision collators take: all images in a list `images`.

    Images come from the columns `images` and `image` and from the content of `messages`, `prompt` and `completion`,
    where `{"type": "image"}` is left in their places. Placeholders are filled with the images of the columns, in
    order. Without any placeholder the images of the columns are put before the first text of the user, where TRL puts
    them. In content entries keys without a value are dropped: Arrow gives every entry of a column the same keys, and
    TRL takes an `image` key, even one without a value, for an image.

    Args:
        row (`Mapping[str, Any]`):
            Row; it is not changed.
        open_columns (`bool`, *optional*, defaults to `True`):
            Whether what the columns name is opened; see [`open_image`]. Otherwise paths and addresses stay there for
            the processor.

    Returns:
        `dict[str, Any]`: the row with `images` and without `image`; `images` is empty where there is no image.

    Raises:
        [`RowError`]: if an image cannot be opened, or the numbers of images and placeholders do not fit.
    """
    result = {key: value for key, value in row.items() if key not in IMAGE_COLUMNS}
    kept_names = () if open_columns else (str, PurePath)
    with in_column("image" if row.get("images") is None else "images"):
        given = [image if isinstance(image, kept_names) else open_image(image) for image in images_of_columns(row)]
    given = [image for image in given if image is not None]
    conversations = {name: row[name] for name in CONVERSATIONS if isinstance(row.get(name), list | tuple)}
    places: list[tuple[str, Any]] = []
    for name, turns in conversations.items():
        parts = [part for turn in turns for part in content_parts(turn) if is_image_part(part)]
        places += [(name, image_source(part)) for part in parts]
        result[name] = [_bare_message(turn, as_parts=bool(parts)) for turn in turns]
    if not places:
        if given and any(content_parts(turn) for turns in conversations.values() for turn in turns):
            _add_placeholders(result, len(given))
        return {**result, "images": given}
    return {**result, "images": _fill(places, given)}


def images_of_columns(row: Mapping[str, Any]) -> list[Any]:
    """What stands in a row's columns `images` or, if there is nothing, `image`, as a list."""
    images = row.get("images")
    if images is None or len(images) == 0:
        images = row.get("image")
    return list(images) if isinstance(images, list | tuple) else [images]


def content_parts(message: Any) -> list[Any]:
    """The entries of a message's content; none where it is a string."""
    content = message.get("content") if isinstance(message, Mapping) else None
    return list(content) if isinstance(content, list | tuple) else []


def _bare_message(message: Any, as_parts: bool) -> Any:
    """A message whose image parts only hold the place, without the keys that Arrow adds."""
    if not isinstance(message, Mapping):
        raise RowError(f"a message is {shorten(message)}; expected a mapping with `role` and `content`")
    content = message.get("content")
    if isinstance(content, str) and as_parts:
        # TRL would put placeholders of its own in front of a string
        return {**message, "content": [{"type": "text", "text": content}]}
    if not isinstance(content, list | tuple):
        return dict(message)
    return {**message, "content": [_bare_part(part) for part in content]}


def _bare_part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise RowError(f"a message's content holds {shorten(part)}; expected a mapping with a `type`")
    entry = {key: value for key, value in part.items() if value is not None}
    if is_image_part(part):
        entry = {key: value for key, value in entry.items() if key not in SOURCE_KEYS} | {"type": "image"}
    return entry


def _add_placeholders(row: dict[str, Any], number: int) -> None:
    for name in ("messages", "prompt"):
        turns: Any = row.get(name) if isinstance(row.get(name), list) else []
        for place, turn in enumerate(turns):
            if turn.get("role") == "user":
                content = turn["content"]
                parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
                turns[place] = {**turn, "content": [{"type": "image"} for _ in range(number)] + parts}
                return


def _fill(places: list[tuple[str, Any]], given: list[Any]) -> list[Any]:
    """The images in the order of their places: those that are named there, and those of the columns elsewhere."""
    number_bare = sum(source is None for _, source in places)
    named = []
    for column, source in places:
        if source is not None:
            with in_column(column):
                named.append(open_image(source))
    if number_bare == len(given):
        rest, opened = iter(given), iter(named)
        return [next(rest) if source is None else next(opened) for _, source in places]
    if not number_bare and [row_digest(image) for image in named] == [row_digest(image) for image in given]:
        return given  # the same images, told twice
    if not given:
        raise RowError(
            f"it has {len(places)} places for images in its messages, but no image can be read for {number_bare} of "
            f"them. Put the images into a column `images`, or into the content as "
            '{"type": "image", "image": ...}'
        )
    raise RowError(
        f"it holds {len(given)} images in its columns and {len(named)} inside its messages, where {number_bare} more "
        "places are left for images. Keep each image once, with one place for each"
    )
