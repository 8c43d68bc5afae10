# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""LADD, the detailed descriptions of MIMIC-IT (Li et al., 2023, arXiv:2306.05425), from local files.

Images come as base64 text in one JSON object of gigabytes. It is read piece by piece, and only the images that an
instruction names are kept.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from ..shorten import shorten
from .captions import features
from .files import BadEntry, SkippedEntries, check_file, check_image, read_json
from .prompts import Family, check_family, format_row


_PIECE = 4 << 20  # characters read at once
_LONGEST_ENTRY = 64 << 20  # characters; far more than any image needs
_ROWS_AT_ONCE = 500  # Arrow counts the bytes of one piece of a column in 32 bits
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_ENTRY = re.compile(rf"\s*({_STRING})\s*:\s*({_STRING}|[^\s\"{{}}\[\],]++)\s*([,}}])", re.DOTALL)


def load_ladd(instructions: str | Path, images: str | Path, *, family: Family = "otter") -> Dataset:
    """LADD as rows for fine-tuning and evaluation: an instruction, an image and a description each.

    Args:
        instructions (`str` or `Path`):
            `LADD_instructions.json`. Other MIMIC-IT files with one image per instruction work too.
        images (`str` or `Path`):
            `LA.json`: the images of these instructions by their ids, in base64.
        family (`str`, *optional*, defaults to `"otter"`):
            Model family to write prompts for: `"llava"`, `"blip2"`, `"openflamingo"` or `"otter"`.

    Returns:
        `datasets.Dataset` with columns `images` (a list of one image, held in memory as encoded), `prompt`,
        `completion` and `references` (`list[str]`, the one answer). Entries without a text, an answer or a readable
        image are left out, with a warning that names them.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `ValueError`: if a file is of another kind, no entry is usable, or `family` is unknown.

    Example:

    ```python
    >>> from cvreg_trainer.data import load_ladd
    >>> train = load_ladd("LA/LADD_instructions.json", "LA/LA.json")
    ```
    """
    check_family(family)
    content = read_json(instructions, ("data",), "MIMIC-IT instructions, such as LADD_instructions.json")
    if not isinstance(content["data"], dict):
        raise ValueError(f"{instructions}: `data` must be an object of instructions by id, as in MIMIC-IT.")
    skipped = SkippedEntries(Path(instructions))
    entries = {}
    for name, entry in content["data"].items():
        try:
            entries[name] = _parse(entry)
        except BadEntry as reason:
            skipped.add(name, reason)
    found = _read_images(check_file(images, "MIMIC-IT images, such as LA.json"), {row[2] for row in entries.values()})
    rows = []
    for name, (instruction, answer, image_id) in entries.items():
        image = found.get(image_id, f"there is no image {shorten(image_id)} in {images}")
        if isinstance(image, str):
            skipped.add(name, image)
            continue
        text = format_row(family, answer, instruction, long_answer=True)
        rows.append({"images": [{"bytes": image, "path": None}], **text, "references": [answer]})
    skipped.report(len(rows))
    parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    return concatenate_datasets([Dataset.from_list(part, features=features(family)) for part in parts])


def _parse(entry: Any) -> tuple[str, str, str]:
    """Instruction, answer and image id of one entry."""
    if not isinstance(entry, dict):
        raise BadEntry("it is not an object")
    texts = []
    for key in ("instruction", "answer"):
        text = entry.get(key)
        if not isinstance(text, str) or not text.strip():
            raise BadEntry(f"its {key} {shorten(text)} is not a text")
        texts.append(text.strip())
    ids = entry.get("image_ids")
    if not isinstance(ids, list) or len(ids) != 1 or not isinstance(ids[0], str):
        raise BadEntry(f"its image_ids {shorten(ids)} are not one id")
    return texts[0], texts[1], ids[0]


def _read_images(path: Path, wanted: set[str]) -> dict[str, bytes | str]:
    """The encoded images with these ids; in the place of a bad one, what is wrong with it."""
    images: dict[str, bytes | str] = {}
    for image_id, text in _iterate_object(path):
        if image_id not in wanted:
            continue
        try:
            image = base64.b64decode(text or "", validate=True)
            check_image(image)
            images[image_id] = image
        except (binascii.Error, ValueError, TypeError) as error:
            reason = error if isinstance(error, BadEntry) else "it is not base64"
            images[image_id] = f"image {shorten(image_id)}: {reason}"
    return images


def _iterate_object(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a JSON object of plain values, without holding all of it in memory."""
    wrong = f"{path} is not a JSON object of base64 images by id, as MIMIC-IT's LA.json is"
    try:
        with path.open(encoding="utf-8") as file:
            buffer = file.read(_PIECE).lstrip()
            if not buffer.startswith("{"):
                raise ValueError("it does not begin with {")
            position = 1
            if buffer[1:].strip() == "}":
                return
            while True:
                if entry := _ENTRY.match(buffer, position):
                    yield json.loads(entry[1]), json.loads(entry[2])
                    if entry[3] == "}":
                        return
                    position = entry.end()
                    continue
                piece = file.read(_PIECE)
                buffer, position = buffer[position:] + piece, 0
                if not piece or len(buffer) > _LONGEST_ENTRY:
                    raise ValueError(f"it cannot be read on from {buffer[:40]!r}")
    except ValueError as error:  # also what is no JSON value, and what is no UTF-8
        raise ValueError(f"{wrong}: {error}.") from None
