# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""COCO captions (Chen et al., 2015, arXiv:1504.00325) from local files: official annotations or Karpathy's splits."""

from pathlib import Path
from typing import Any

from datasets import Dataset

from ..shorten import shorten
from .captions import CaptionedImage, Rows, build_rows, check_rows, karpathy_entries
from .files import read_json
from .prompts import Family


def load_coco(
    annotations: str | Path,
    images: str | Path,
    split: str | None = None,
    *,
    rows: Rows = "image",
    family: Family = "llava",
) -> Dataset:
    """COCO captions as rows for fine-tuning and evaluation.

    Args:
        annotations (`str` or `Path`):
            An official file, such as `captions_val2014.json`, or Karpathy's `dataset_coco.json`.
        images (`str` or `Path`):
            Folder of the images: `val2014` for official annotations; for Karpathy's the one above, with `train2014`
            and `val2014` in it.
        split (`str`, *optional*):
            For Karpathy's file, which holds all of them: `"train"`, `"restval"`, `"val"`, `"test"`, or several, as in
            `"train+restval"`.
        rows (`str`, *optional*, defaults to `"image"`):
            `"image"`: one row an image, for evaluation; its completion is the first caption. `"caption"`: one row a
            caption, for training. `references` holds all captions of the image in both.
        family (`str`, *optional*, defaults to `"llava"`):
            Model family to write prompts for: `"llava"`, `"blip2"`, `"openflamingo"` or `"otter"`.

    Returns:
        `datasets.Dataset` with columns `images` (a list of one image, read when used), `prompt`, `completion` and
        `references` (`list[str]`). Entries without a readable image or a caption are left out, with a warning that
        names them.

    Raises:
        `OSError`: if a file or folder does not exist.
        `ValueError`: if the annotations are of another kind, no entry is usable, or an option is unknown.

    Example:

    ```python
    >>> from cvreg_trainer.data import load_coco
    >>> test = load_coco("dataset_coco.json", "coco", "test")
    >>> train = load_coco("annotations/captions_train2014.json", "train2014", rows="caption", family="blip2")
    ```
    """
    check_rows(rows, family)
    content = read_json(annotations, ("images",), "COCO captions: captions_*.json, or Karpathy's dataset_coco.json")
    if "annotations" in content:
        if split is not None:
            raise ValueError(f"split={split!r}: {annotations} is one split already; leave it out.")
        entries = _official_entries(content, annotations)
    else:
        entries = karpathy_entries(content, annotations, "coco", split)
    return build_rows(entries, Path(annotations), images, rows, family)


def _official_entries(content: dict[str, Any], annotations: str | Path) -> list[CaptionedImage]:
    if not isinstance(content["images"], list) or not isinstance(content["annotations"], list):
        raise ValueError(f"{annotations}: `images` and `annotations` must be lists, as in COCO's captions_*.json.")
    file_names: dict[Any, Any] = {}
    captions: dict[Any, list[Any]] = {}
    broken = []
    for index, image in enumerate(content["images"]):
        identity = image.get("id") if isinstance(image, dict) else None
        if isinstance(identity, (int, str)) and identity not in file_names:
            file_names[identity] = image.get("file_name")
            captions[identity] = []
        else:
            broken.append(CaptionedImage(f"images[{index}]", problem="it has no `id` of its own"))
    for index, annotation in enumerate(content["annotations"]):
        identity = annotation.get("image_id") if isinstance(annotation, dict) else None
        if isinstance(identity, (int, str)) and identity in captions:
            captions[identity].append(annotation.get("caption"))
        else:
            broken.append(CaptionedImage(f"annotations[{index}]", problem=f"there is no image {shorten(identity)}"))
    good = [CaptionedImage(f"image {key}", name, captions[key]) for key, name in file_names.items()]
    return good + broken
