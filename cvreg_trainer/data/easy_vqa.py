# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""easy-VQA (Zhou, 2019): questions about 64x64 images of coloured shapes, out of the PyPI package of that name.

Small, but somebody else's: neither images nor questions nor answers were made for this package. Needs the extra
`easy-vqa`; nothing is downloaded when it is used.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

from datasets import Dataset

from .captions import features
from .files import BadEntry, SkippedEntries, check_image
from .prompts import Family, check_family, format_row


EasyVqaSplit = Literal["train", "test"]


def load_easy_vqa(split: EasyVqaSplit = "train", *, family: Family = "llava") -> Dataset:
    """easy-VQA as rows for fine-tuning and evaluation: one row a question, in the order of the package.

    Args:
        split (`str`, *optional*, defaults to `"train"`):
            `"train"` (38,575 questions about 4,000 images) or `"test"` (9,673 about 1,000 others).
        family (`str`, *optional*, defaults to `"llava"`):
            Model family to write prompts for: `"llava"`, `"blip2"`, `"openflamingo"` or `"otter"`.

    Returns:
        `datasets.Dataset` with columns `images` (a list of one image, read when used), `prompt`, `completion` and
        `references` (`list[str]`, the one answer, of 13 that occur), for [`VqaAccuracy`].

    Raises:
        `ImportError`: if the package `easy-vqa` is not installed.
        `ValueError`: if `split` or `family` is unknown.

    Example:

    ```python
    >>> from cvreg_trainer.data import load_easy_vqa
    >>> test = load_easy_vqa("test").shuffle(seed=0).select(range(500))
    ```
    """
    check_family(family)
    if split not in get_args(EasyVqaSplit):
        raise ValueError(f"split={split!r} is unknown; use one of {', '.join(get_args(EasyVqaSplit))}.")
    try:
        import easy_vqa
    except ImportError as error:
        raise ImportError('easy-VQA comes with an extra: `pip install ".[easy-vqa]"` in a checkout.') from error
    questions, paths = {
        "train": (easy_vqa.get_train_questions, easy_vqa.get_train_image_paths),
        "test": (easy_vqa.get_test_questions, easy_vqa.get_test_image_paths),
    }[split]
    image_paths = paths()
    skipped = SkippedEntries(Path(easy_vqa.__file__).parent)
    bad = _check_images(image_paths, skipped, Counter(questions()[2]))
    columns: dict[str, list[Any]] = {name: [] for name in features(family)}
    for question, answer, image_id in zip(*questions(), strict=True):
        if image_id in bad:
            continue
        row = {
            "images": [image_paths[image_id]],
            **format_row(family, answer, question),
            "references": [answer],
        }
        for name, value in row.items():
            columns[name].append(value)
    skipped.report(len(columns["images"]))
    return Dataset.from_dict(columns, features=features(family))


def _check_images(image_paths: dict[int, str], skipped: SkippedEntries, asked: Counter[int]) -> set[int]:
    """The images that questions ask about and that cannot be used."""
    bad = set()
    for image_id, count in sorted(asked.items()):
        try:
            if image_id not in image_paths:
                raise BadEntry("there is no such image")
            check_image(Path(image_paths[image_id]))
        except BadEntry as reason:
            bad.add(image_id)
            skipped.add(f"image {image_id} of {count} questions", reason)
    return bad
