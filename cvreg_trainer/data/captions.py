# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the caption data sets share: rows from captioned images, and Karpathy's split files.

Image files are not read into memory: rows hold their paths, which `datasets` decodes when a row is used and copies
into the data set when it is saved.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from datasets import Dataset, Features, Image, List, Value

from ..shorten import shorten
from .files import BadEntry, SkippedEntries, check_folder, check_image, path_inside
from .prompts import Family, check_family, format_row, text_feature


Rows = Literal["image", "caption"]
KARPATHY_SPLITS = ("train", "restval", "val", "test")


class CaptionedImage(NamedTuple):
    """An entry of a data file, not checked yet.

    Args:
        name (`str`):
            What to call it in messages.
        file_name (`Any`):
            Path of its image, relative to the image folder; should be a string.
        captions (`list`):
            Its captions; should be strings that are not blank.
        problem (`str`, *optional*, defaults to `""`):
            Why it cannot be used, if that is known already.
    """

    name: str
    file_name: Any = None
    captions: Sequence[Any] = ()
    problem: str = ""


def features(family: Family) -> Features:
    """Columns of the rows for a model family; see [`build_rows`]."""
    text = text_feature(family)
    return Features(images=List(Image()), prompt=text, completion=text, references=List(Value("string")))


def check_rows(rows: str, family: str) -> None:
    """Raises a `ValueError` naming what is allowed if either is unknown."""
    if rows not in get_args(Rows):
        raise ValueError(f"rows={rows!r} is unknown; use one of {', '.join(get_args(Rows))}.")
    check_family(family)


def build_rows(
    entries: Iterable[CaptionedImage], source: Path, images: str | Path, rows: Rows, family: Family
) -> Dataset:
    """A data set from captioned images; entries without a usable image or caption are skipped with a warning.

    Args:
        entries (`Iterable[CaptionedImage]`):
            The entries, in the order of the rows.
        source (`Path`):
            File they come from, for messages.
        images (`str` or `Path`):
            Folder that file names are relative to.
        rows (`str`):
            `"image"`: one row an image, whose completion is the first caption, for evaluation (each image is to be
            captioned once) and for training on one caption an image. `"caption"`: one row a caption, for training.
        family (`str`):
            Model family that prompts are written for, see [`format_row`].

    Returns:
        `datasets.Dataset` with columns `images` (a list of one image), `prompt`, `completion` and `references`
        (`list[str]`, all captions of the image).
    """
    check_rows(rows, family)
    folder = check_folder(images, "the folder of the images")
    skipped = SkippedEntries(source)
    columns: dict[str, list[Any]] = {name: [] for name in features(family)}
    kept = 0
    for entry in entries:
        try:
            if entry.problem:
                raise BadEntry(entry.problem)
            path = path_inside(folder, entry.file_name)
            check_image(path)
            captions = _captions(entry, skipped)
        except BadEntry as reason:
            skipped.add(entry.name, reason)
            continue
        kept += 1
        for caption in captions[: 1 if rows == "image" else None]:
            row = {"images": [str(path)], **format_row(family, caption), "references": captions}
            for name, value in row.items():
                columns[name].append(value)
    skipped.report(kept)
    return Dataset.from_dict(columns, features=features(family))


def _captions(entry: CaptionedImage, skipped: SkippedEntries) -> list[str]:
    """The usable captions, without line breaks and outer white space."""
    captions = []
    for index, caption in enumerate(entry.captions):
        if isinstance(caption, str) and caption.strip():
            captions.append(" ".join(caption.split()))
        else:
            skipped.add(f"{entry.name}, caption {index}", f"{shorten(caption)} is not a text")
    if not captions:
        raise BadEntry("it has no caption")
    return captions


def karpathy_entries(
    content: dict[str, Any], source: str | Path, dataset: str, split: str | None
) -> list[CaptionedImage]:
    """The entries of one or more splits of Karpathy and Fei-Fei (2015).

    Args:
        content (`dict`):
            What `dataset_coco.json` or `dataset_flickr30k.json` holds.
        source (`str` or `Path`):
            The file, for messages.
        dataset (`str`):
            Data set that the file must name: `"coco"` or `"flickr30k"`.
        split (`str`, *optional*):
            `"train"`, `"restval"` (COCO alone: the rest of the validation images, mostly trained on as well), `"val"`
            or `"test"`; several are joined by `+`.

    Raises:
        `ValueError`: if it is another kind of file, or `split` is missing, unknown or empty.
    """
    if content.get("dataset") != dataset or not isinstance(content["images"], list):
        raise ValueError(
            f"{source} says that it is the data set {shorten(content.get('dataset'))}; expected Karpathy's "
            f"dataset_{dataset}.json."
        )
    wanted = (split or "").split("+")
    if not set(wanted) <= set(KARPATHY_SPLITS):
        raise ValueError(f"split={split!r}: {source} needs one of {', '.join(KARPATHY_SPLITS)}, or train+restval.")
    entries = [
        _karpathy_entry(image, f"images[{index}]")
        for index, image in enumerate(content["images"])
        if not isinstance(image, dict) or image.get("split") in {*wanted, None}
    ]
    if not entries:
        raise ValueError(f"split={split!r}: {source} has no such images.")
    return entries


def _karpathy_entry(image: Any, name: str) -> CaptionedImage:
    if not isinstance(image, dict) or not isinstance(image.get("sentences"), list) or "split" not in image:
        return CaptionedImage(name, problem="it lacks the keys `split`, `filename` and `sentences`")
    file_name, folder = image.get("filename"), image.get("filepath")
    if isinstance(file_name, str) and isinstance(folder, str):
        file_name = f"{folder}/{file_name}"
    captions = [sentence.get("raw") if isinstance(sentence, dict) else sentence for sentence in image["sentences"]]
    return CaptionedImage(name, file_name, captions)
