# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Joins the sources into one captioned set, and splits it.

Notable: pictures that show the same thing are linked, over any number of steps: those of one family, and those whose
captions are equal but for case, accents, articles and numbers. A split takes or leaves a linked group as a whole.
Where hundreds of pictures share a caption by design (the ten labels of Fashion-MNIST), captions link nothing.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image as PILImage

from ...shorten import shorten
from .emoji import read_google_emoji, read_twitter_emoji
from .fashion_mnist import read_fashion_mnist
from .food import read_food
from .open_clipart import read_open_clipart
from .picture import Picture, plain
from .tux_paint import read_tux_paint


PICTURE_SOURCES: dict[str, Callable[[str | Path | None], list[Picture]]] = {
    "tux_paint": read_tux_paint,
    "food": read_food,
    "open_clipart": read_open_clipart,
    "google_emoji": read_google_emoji,
    "twitter_emoji": read_twitter_emoji,
    "fashion_mnist": read_fashion_mnist,
}
LABELLED = {"fashion_mnist"}  # a caption is a label there, shared by many different pictures
MAX_PIXELS = 20_000_000
# Of 100 groups: what a base model is made of, what it is then fine-tuned on, and what both are measured on
SPLITS = {"base": 70, "tune": 20, "test": 10}


def load_pictures(packages: str | Path | None = None, sources: Iterable[str] | None = None) -> list[Picture]:
    """
    The pictures of the sources, without those whose file another one has byte for byte, is broken or is larger than
    [`MAX_PIXELS`].

    Args:
        packages (`str` or `Path`, *optional*):
            Folder that packages were unpacked into. What is not there is looked for among the packages of the system.
        sources (`Iterable[str]`, *optional*):
            Keys of [`PICTURE_SOURCES`]. All, if not set.

    Returns:
        `list[Picture]`: in the order of the sources.

    Raises:
        `ValueError`: if a source is not known.
        `FileNotFoundError`: if a package is not installed, with the command that installs it.
    """
    pictures, seen = [], set[bytes]()
    for source in PICTURE_SOURCES if sources is None else sources:
        if source not in PICTURE_SOURCES:
            raise ValueError(f"The source has to be one of {', '.join(PICTURE_SOURCES)}, but is {shorten(source)}.")
        for picture in PICTURE_SOURCES[source](packages):
            content = picture.image if isinstance(picture.image, bytes) else picture.image.read_bytes()
            digest = hashlib.sha256(content).digest()
            if digest not in seen and _is_openable(content):
                seen.add(digest)
                pictures.append(picture)
    return pictures


def _is_openable(content: bytes) -> bool:
    """By the file's first bytes: an image, and not of a size that takes minutes to shrink."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            with PILImage.open(io.BytesIO(content)) as image:
                return image.width * image.height <= MAX_PIXELS
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError):
        return False


def group_pictures(pictures: Sequence[Picture]) -> list[str]:
    """
    What group each picture belongs to; pictures that show the same thing are in one.

    Args:
        pictures (`Sequence[Picture]`):
            The pictures.

    Returns:
        `list[str]`: the group's smallest name, one for each picture. It depends only on who is linked with whom.
    """
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    names = [_links(picture) for picture in pictures]
    for first, *others in names:
        for other in others:
            low, high = sorted((find(first), find(other)))
            parent[high] = low
    return [find(first) for first, *_ in names]


def _links(picture: Picture) -> list[str]:
    links = [f"family {picture.source} {picture.family or picture.key}"]
    if picture.source not in LABELLED:
        links.append(f"caption {plain(picture.caption)}")
    return links


def split_pictures(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """
    The pictures by the splits of [`SPLITS`], decided by a digest of each group's name.

    Args:
        pictures (`Sequence[Picture]`):
            The pictures.

    Returns:
        `dict[str, list[Picture]]`: the pictures of each split in their order.
    """
    splits: dict[str, list[Picture]] = {name: [] for name in SPLITS}
    for picture, group in zip(pictures, group_pictures(pictures), strict=True):
        place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4]) % sum(SPLITS.values())
        for name, share in SPLITS.items():
            place -= share
            if place < 0:
                splits[name].append(picture)
                break
    return splits
