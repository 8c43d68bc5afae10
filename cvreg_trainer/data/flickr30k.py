# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Flickr30k (Young et al., 2014) from local files: the token file it is given out with, or Karpathy's splits."""

from pathlib import Path

from datasets import Dataset

from .captions import CaptionedImage, Rows, build_rows, check_rows, karpathy_entries
from .files import check_file, read_json
from .prompts import Family


def load_flickr30k(
    annotations: str | Path,
    images: str | Path,
    split: str | None = None,
    *,
    rows: Rows = "image",
    family: Family = "llava",
) -> Dataset:
    """Flickr30k as rows for fine-tuning and evaluation.

    Args:
        annotations (`str` or `Path`):
            `results_20130124.token` (lines of `image.jpg#0`, a tab and a caption), or Karpathy's
            `dataset_flickr30k.json`, told apart by the ending `.json`.
        images (`str` or `Path`):
            Folder of the images.
        split (`str`, *optional*):
            For Karpathy's file: `"train"`, `"val"` or `"test"`. The token file has no splits.
        rows, family:
            As for [`load_coco`].

    Returns:
        `datasets.Dataset`: as from [`load_coco`].

    Raises:
        `OSError`: if a file or folder does not exist.
        `ValueError`: if the annotations are of another kind, no entry is usable, or an option is unknown.

    Example:

    ```python
    >>> from cvreg_trainer.data import load_flickr30k
    >>> test = load_flickr30k("dataset_flickr30k.json", "flickr30k-images", "test")
    ```
    """
    check_rows(rows, family)
    path = check_file(annotations, "Flickr30k's results_20130124.token, or Karpathy's dataset_flickr30k.json")
    if path.suffix == ".json":
        content = read_json(path, ("images",), "Karpathy's dataset_flickr30k.json")
        entries = karpathy_entries(content, path, "flickr30k", split)
    elif split is not None:
        raise ValueError(f"split={split!r}: {path} has no splits; use Karpathy's dataset_flickr30k.json.")
    else:
        entries = _token_entries(path)
    return build_rows(entries, path, images, rows, family)


def _token_entries(path: Path) -> list[CaptionedImage]:
    captions: dict[str, list[str]] = {}
    broken = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); expected Flickr30k's results_20130124.token.") from None
    for number, line in enumerate(lines, start=1):
        place, tab, caption = line.partition("\t")
        name, hash_sign, index = place.rpartition("#")
        if tab and hash_sign and index.isdecimal():
            captions.setdefault(name, []).append(caption)
        elif line.strip():
            broken.append(CaptionedImage(f"line {number}", problem="it is not `image.jpg#0`, a tab and a caption"))
    return [CaptionedImage(name, name, texts) for name, texts in captions.items()] + broken
