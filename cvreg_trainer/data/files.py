# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Reads third-party files without trusting them: what is broken is named and left out, never silently.

A data set that is to be searched for backdoors may be hostile in duller ways too: file names that point elsewhere,
images that fill the memory when decoded.
"""

import io
import json
import logging
import warnings
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from PIL import Image as PILImage

from ..shorten import shorten


logger = logging.getLogger(__name__)

_NAMED = 5  # skipped entries that are named in full; of the others, the number
_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class BadEntry(ValueError):
    """An entry of a data file that cannot become a row; the message says why."""


class SkippedEntries:
    """Counts the entries that are left out and says so once, in a warning of the `cvreg_trainer.data` logger.

    Args:
        source (`Path`):
            File that the entries stand in.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.reasons: list[str] = []

    def add(self, name: str, reason: object) -> None:
        self.reasons.append(f"{name}: {reason}")

    def report(self, kept: int) -> None:
        """Warns about what was skipped; raises a `ValueError` if nothing is left.

        Args:
            kept (`int`):
                Number of entries that became rows.
        """
        named = "; ".join(self.reasons[:_NAMED])
        if len(self.reasons) > _NAMED:
            named += f"; and {len(self.reasons) - _NAMED} more"
        if not kept:
            raise ValueError(f"{self.source} has no usable entry ({len(self.reasons)} skipped). {named}".strip())
        if self.reasons:
            logger.warning("%s: kept %d entries, skipped %d: %s", self.source, kept, len(self.reasons), named)


def check_file(path: str | Path, expected: str) -> Path:
    """The path of a file that exists.

    Args:
        path (`str` or `Path`):
            Path given by the user.
        expected (`str`):
            What the file should be, for the message.

    Raises:
        `FileNotFoundError`: if there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "it does not exist"
        raise FileNotFoundError(f"{path}: {found}; expected {expected}.")
    return path


def check_folder(path: str | Path, expected: str) -> Path:
    """The path of a folder that exists; arguments and errors as for [`check_file`]."""
    path = Path(path).expanduser()
    if not path.is_dir():
        found = "it is a file" if path.is_file() else "it does not exist"
        raise NotADirectoryError(f"{path}: {found}; expected {expected}.")
    return path


def read_json(path: str | Path, keys: tuple[str, ...], expected: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path (`str` or `Path`):
            The file.
        keys (`tuple[str, ...]`):
            Keys that the object must have.
        expected (`str`):
            What the file should be, for the messages.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `ValueError`: if it is not JSON, or not an object with these keys.
    """
    path = check_file(path, expected)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); expected {expected}.") from None
    if not isinstance(content, dict) or not set(keys) <= set(content):
        found = f"the keys {sorted(content)[:8]}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{path} holds {found}; expected {expected}, with the keys {sorted(keys)}.")
    return content


def path_inside(folder: Path, name: Any) -> Path:
    """The path of a file that a data file names, if it lies in the folder also after following links.

    Raises:
        [`BadEntry`]: if it does not, or if there is no such file.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadEntry(f"{shorten(name)} is not a file name")
    # A backslash separates folders on Windows only: what must not work there should not work anywhere
    relative = PurePosixPath(name.replace("\\", "/"))
    root = folder.resolve()
    path = root / relative
    if relative.is_absolute() or ".." in relative.parts or not path.resolve().is_relative_to(root):
        raise BadEntry(f"{shorten(name)} leads out of {folder}")
    if not path.is_file():
        raise BadEntry(f"{shorten(name)} is not in {folder}")
    return path


def check_image(source: Path | bytes) -> None:
    """Checks that an image can be opened, is complete and not absurdly large, mostly without decoding it.

    The header is read. Only where the end mark of a JPEG or PNG file is missing is the image decoded, to see whether
    it is truncated.

    Args:
        source (`Path` or `bytes`):
            The image file, or what would stand in it.

    Raises:
        [`BadEntry`]: if it cannot be opened, is truncated, or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        with warnings.catch_warnings(), _open(source) as file:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", PILImage.DecompressionBombWarning)
            with PILImage.open(file) as image:
                mark = _LAST_BYTES.get(image.format or "")
                file.seek(max(file.seek(0, io.SEEK_END) - 64, 0))
                if mark is None or mark not in file.read():
                    file.seek(0)
                    image.load()
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning):
        limit = f"{PILImage.MAX_IMAGE_PIXELS or 0:,}"
        raise BadEntry(f"{_name(source)} has more than {limit} pixels (PIL.Image.MAX_IMAGE_PIXELS)") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        reason = str(error).split(" <")[0].replace(str(source), "").strip() if isinstance(source, Path) else "corrupt"
        raise BadEntry(f"{_name(source)} is not a readable image ({reason})") from None


def _open(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _name(source: Path | bytes) -> str:
    return "its image" if isinstance(source, bytes) else f"{source.name!r}"
