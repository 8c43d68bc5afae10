# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Opens whatever a user points a command at: a saved data set, a file, a folder of files, or a name on the hub.

Nothing is written beside the user's files. What a local data set names may not leave its folder: see `confined`.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, config, load_dataset, load_from_disk
from PIL import Image as PILImage

from ..shorten import shorten
from .confined import confine_images
from .csv_rows import OPTIONS, from_csv
from .files import BadEntry, path_inside
from .formats import has_marks, mark_poisoned, to_messages
from .row_checks import check_not_empty


_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}
_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test"}
_SPLIT_WORDS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def open_dataset(
    source: str | Path,
    split: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    image_root: str | Path | None = None,
) -> Dataset:
    """One split of a data set from a local path or the hub.

    Args:
        source (`str` or `Path`):
            A folder written by `save_to_disk`; a `.parquet`, `.json`, `.jsonl` or `.csv` file; a folder of such files
            or of images, as `datasets.load_dataset` takes it; or the name of a data set on the hub. Images may be
            given by paths, in a column `image` or `images` or inside messages. In CSV files `prompt` and `completion`
            are the two turns of a conversation. Conversations in the formats of LLaVA and
            ShareGPT are converted; see [`to_messages`]. Rows that BackdoorVLM marks as poisoned are marked in a column
            `is_poisoned`; see [`mark_poisoned`].
        split (`str`, *optional*):
            The split to take; may be left out if there is but one.
        cache_dir (`str` or `Path`, *optional*):
            Where `datasets` keeps its Arrow copy of local files. By default its own cache.
        image_root (`str` or `Path`, *optional*):
            Folder that paths are relative to, and that images may lie in. By default the data's own folder.

    Returns:
        `datasets.Dataset`: with columns `images` or `image` as `datasets.Image` features, if there are such.

    Raises:
        `OSError`: if there is nothing of this name.
        `ValueError`: if it cannot be read, has no rows, holds several splits and none is chosen, names a file outside
            the folder or an address, or has rows that cannot be converted.

    Example:

    ```python
    >>> from cvreg_trainer.data import open_dataset
    >>> rows = open_dataset("data/train.parquet")
    ```
    """
    path = Path(source).expanduser()
    if image_root is not None and not Path(image_root).expanduser().is_dir():
        raise NotADirectoryError(f"image_root={str(image_root)!r} is not a folder.")
    loaded = _load_local(path, cache_dir) if path.exists() else _load_hub(str(source), split)
    dataset = _one_split(loaded, split, source)
    check_not_empty(dataset, str(source))
    if not path.exists():
        own = Path(config.HF_CACHE_HOME)
    else:
        own = path if path.is_dir() else path.parent
    folders = (own,) if image_root is None else (Path(image_root), own)
    try:
        dataset = to_messages(mark_poisoned(dataset) if has_marks(dataset) else dataset)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return confine_images(dataset, folders, source)


def _load_local(path: Path, cache_dir: Any) -> Any:
    if path.is_file() and path.suffix not in _FORMATS:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(_FORMATS)}, or a folder.")
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        return _load_saved(path)
    files = [path] if path.is_file() else _data_files(path)
    kind = _kind_of(files)
    if kind is None:
        raise ValueError(f"{path} holds no data: expected files that end in {', '.join(_FORMATS)}, or images.")
    options: dict[str, Any] = {"data_dir": str(path.resolve())}
    if kind != "imagefolder":
        files = [file for file in files if _FORMATS.get(file.suffix) == kind]
        filled = [file for file in files if not _is_empty(file)]
        if not filled:
            raise ValueError(f"{path} has no rows.")
        for file in filled:
            _check_json(file)
        options = {"data_files": _by_split(filled, path), **(OPTIONS if kind == "csv" else {})}
    try:
        # By the kind of file, not by the folder: its README.md could name data files elsewhere
        loaded = load_dataset(kind, cache_dir=cache_dir, **options)
    except Exception as error:  # builders raise whatever their readers do; the reason is in the innermost one
        reason = error.__cause__ or error
        if "corresponds to no data" in str(reason):
            raise ValueError(f"{path} has no rows.") from error
        raise ValueError(f"{path} cannot be read as a data set: {shorten(str(reason), 500)}") from error
    has_csv = kind == "csv" or (kind == "imagefolder" and any(file.name == "metadata.csv" for file in files))
    return DatasetDict({split: from_csv(rows) for split, rows in loaded.items()}) if has_csv else loaded


def _load_saved(path: Path) -> Any:
    """What `save_to_disk` wrote, if its Arrow files are its own."""
    for state in (*path.glob("state.json"), *path.glob("*/state.json")):
        try:
            names = [str(file["filename"]) for file in json.loads(state.read_bytes())["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read as a data set: {state.name} is broken ({error!r}).") from None
        if not names:
            raise ValueError(f"{path} has no rows.")
        for name in names:
            try:
                path_inside(state.parent, name)
            except BadEntry as reason:
                raise ValueError(f"{path} cannot be read as a data set: its file {reason}.") from None
    try:
        return load_from_disk(str(path))
    except Exception as error:  # as above
        raise ValueError(f"{path} cannot be read as a data set: {error.__cause__ or error}") from error


def _data_files(folder: Path) -> list[Path]:
    """The files of a folder that may hold rows or images, hidden ones aside."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _kind_of(files: list[Path]) -> str | None:
    """Which builder of `datasets` reads these files."""
    has_images = any(file.suffix.lower() in PILImage.registered_extensions() for file in files)
    kinds = Counter(_FORMATS[file.suffix] for file in files if file.suffix in _FORMATS)
    if has_images and (not kinds or any(file.stem == "metadata" for file in files)):
        return "imagefolder"
    # However many images lie beside them, the rows name them
    return kinds.most_common(1)[0][0] if kinds else None


def _is_empty(file: Path) -> bool:
    if file.suffix == ".parquet":
        try:
            return pq.read_metadata(file).num_rows == 0
        except (OSError, pa.ArrowInvalid):
            return False  # broken, as the builder will say
    return file.stat().st_size < 1024 and file.read_bytes().strip() in (b"", b"[]")


def _check_json(file: Path) -> None:
    """Arrow's reader of JSON does not survive a `null` in the place of the first row."""
    if _FORMATS[file.suffix] != "json":
        return
    with file.open("rb") as content:
        start = content.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    first = start[1:].lstrip() if start.startswith(b"[") else start
    if first[:1] not in (b"{", b"]", b""):
        raise ValueError(f"{file} cannot be read as a data set: it starts with {shorten(start[:20])}; expected rows.")


def _by_split(files: list[Path], folder: Path) -> dict[str, list[str]]:
    """The files of each split, by the words in their names; those without one belong to `train`."""
    splits: dict[str, list[str]] = {}
    for file in files:
        words = re.findall(r"[a-z]+", str(file.relative_to(folder)).lower()) if file != folder else []
        split = next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")
        splits.setdefault(split, []).append(str(file.resolve()))
    return splits


def _load_hub(name: str, split: str | None) -> Any:
    if not _HUB_NAME.fullmatch(name) or Path(name).suffix in _FORMATS:
        raise FileNotFoundError(f"{name}: there is no such file or folder.")
    try:
        return load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name!r} is neither a local file or folder nor a data set that can be had from the hub: {error}"
        ) from error


def _one_split(loaded: Any, split: str | None, source: str | Path) -> Dataset:
    if isinstance(loaded, Dataset):
        return loaded
    if not isinstance(loaded, DatasetDict):
        raise ValueError(f"{source} is a {type(loaded).__name__}; expected a data set.")
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        raise ValueError(f"split={split!r}: {source} has the splits {', '.join(loaded)}; name one of them.")
    return loaded[split]
