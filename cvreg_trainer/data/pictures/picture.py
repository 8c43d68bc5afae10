# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""One picture of an installed package, with what its makers wrote about it.

Notable: a picture is read when it is asked for, never copied into this package. Transparent ones are put on white: a
vision tower takes three channels, and the colours of transparent pixels were never meant to be seen.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image as PILImage

from ..files import BadEntry


@dataclass(frozen=True)
class Picture:
    """
    A picture and its words.

    Args:
        source (`str`):
            Name of the source; a key of [`PICTURE_SOURCES`].
        key (`str`):
            What the source calls it; unique within the source.
        image (`Path` or `bytes`):
            The image file, or what would stand in it.
        caption (`str`):
            What a person wrote about it.
        names (`tuple[str, ...]`, *optional*):
            Other words for it, such as keywords.
        category (`str`, *optional*, defaults to `""`):
            What kind of thing it shows, in the source's words.
        family (`str`, *optional*, defaults to `""`):
            Pictures of one source and family show nearly the same, such as views of one model.
        cryptic (`bool`, *optional*, defaults to `False`):
            Whether the caption says little about what is to be seen ("Anonymous 17", "kr_terminal").
        translations (`Mapping[str, str]`, *optional*):
            The caption in other languages, by their codes.
    """

    source: str
    key: str
    image: Path | bytes
    caption: str
    names: tuple[str, ...] = ()
    category: str = ""
    family: str = ""
    cryptic: bool = False
    translations: Mapping[str, str] = field(default_factory=dict)

    def open(self, side: int = 128) -> PILImage.Image:
        """
        The picture in RGB, on white where it is transparent, no side longer than `side` pixels.

        Args:
            side (`int`, *optional*, defaults to `128`):
                Longest side. Smaller pictures keep their size.

        Raises:
            [`BadEntry`]: if it cannot be read, or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", PILImage.DecompressionBombWarning)
                source = io.BytesIO(self.image) if isinstance(self.image, bytes) else self.image
                with PILImage.open(source) as file:
                    image = file.convert("RGBA")
        except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError, Warning) as error:
            raise BadEntry(f"{self.key} of {self.source} is not a readable image ({error})") from None
        image.thumbnail((side, side), PILImage.Resampling.LANCZOS)
        ground = PILImage.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        return ground.convert("RGB")


def words_of(name: str) -> str:
    """A file's name as words: `big_red-carSmall02` becomes `big red car small`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.sub(r"[\W_]+|\d+", " ", name).lower().split())


def plain(caption: str) -> str:
    """A caption without case, accents, articles, numbers and marks, so that equal ones can be found."""
    text = unicodedata.normalize("NFKD", caption.lower())
    text = re.sub(r"[^\w\s]|\d|_", " ", "".join(c for c in text if not unicodedata.combining(c)))
    words = [word for word in text.split() if word not in {"a", "an", "the"}]
    return " ".join(words) or caption.strip().lower()


def distinct(values: Sequence[str]) -> tuple[str, ...]:
    """The values that are not blank, each once, in their order."""
    return tuple(dict.fromkeys(value.strip() for value in values if value.strip()))
