# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Opens whatever a user points a command at: a saved data set, a file, a folder of files, or a name on the hub.

Nothing is written beside the user's files. Image paths that stand in the data may not leave the data's folder: a data
set that names other files of this machine would otherwise carry them along when it is saved and passed on.
"""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Image, LargeList, List, Value, config, load_dataset, load_from_disk

from .files import BadEntry, path_inside


_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
IMAGE_COLUMNS = ("images", "image")


def open_dataset(source: str | Path, split: str | None = None, *, cache_dir: str | Path | None = None) -> Dataset:
    """One split of a data set from a local path or the hub.

    Args:
        source (`str` or `Path`):
            A folder written by `save_to_disk`; a `.parquet`, `.json` or `.jsonl` file; a folder of such files or of
            images, as `datasets.load_dataset` takes it; or the name of a data set on the hub. In JSON, images are
            paths relative to its folder.
        split (`str`, *optional*):
            The split to take; may be left out if there is but one.
        cache_dir (`str` or `Path`, *optional*):
            Where `datasets` keeps its Arrow copy of local files. By default its own cache.

    Returns:
        `datasets.Dataset`: with columns `images` or `image` as `datasets.Image` features, if there are such.

    Raises:
        `OSError`: if there is nothing of this name.
        `ValueError`: if it cannot be read, holds several splits and none is chosen, or names an image outside.

    Example:

    ```python
    >>> from cvreg_trainer.data import open_dataset
    >>> rows = open_dataset("data/train.parquet")
    ```
    """
    path = Path(source).expanduser()
    loaded = _load_local(path, cache_dir) if path.exists() else _load_hub(str(source), split)
    dataset = _one_split(loaded, split, source)
    if not path.exists():
        root = Path(config.HF_CACHE_HOME)
    else:
        root = path if path.is_dir() else path.parent
    return _with_images(dataset, root.expanduser().resolve(), source)


def _load_local(path: Path, cache_dir: Any) -> Any:
    if path.is_file() and path.suffix not in _FORMATS:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(_FORMATS)}, or a folder.")
    try:
        if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
            return load_from_disk(str(path))
        if path.is_file():
            return load_dataset(_FORMATS[path.suffix], data_files=str(path.resolve()), cache_dir=cache_dir)
        return load_dataset(str(path.resolve()), cache_dir=cache_dir)
    except Exception as error:  # builders raise whatever their readers do; the reason is in the innermost one
        reason = error.__cause__ or error
        raise ValueError(f"{path} cannot be read as a data set: {reason}") from error


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


def _with_images(dataset: Dataset, root: Path, source: str | Path) -> Dataset:
    """The data set with its image columns as images, whose paths are checked."""
    for column in IMAGE_COLUMNS:
        feature = dataset.features.get(column)
        is_list = isinstance(feature, (List, LargeList))
        inner = feature.feature if is_list else feature
        if inner == Value("string"):
            resolved = [_resolve(value, root, source, row) for row, value in enumerate(dataset[column])]
            wanted = List(Image()) if is_list else Image()
            dataset = dataset.remove_columns(column).add_column(
                column, [_stored(paths) for paths in resolved], feature=wanted
            )
        elif isinstance(inner, Image) or (isinstance(inner, dict) and set(inner) == {"bytes", "path"}):
            for row, path in _external_paths(dataset, column):
                _resolve(path, root, source, row, absolute=True)
            if isinstance(inner, dict):
                dataset = dataset.cast_column(column, List(Image()) if is_list else Image())
    return dataset


def _resolve(value: Any, root: Path, source: str | Path, row: int, absolute: bool = False) -> Any:
    """The path or paths of a row, found in the folder."""
    if value is None or isinstance(value, list):
        return value and [_resolve(item, root, source, row, absolute) for item in value]
    try:
        if absolute and Path(value).resolve().is_relative_to(root):
            value = str(Path(value).resolve().relative_to(root))
        return str(path_inside(root, value))
    except BadEntry as reason:
        raise ValueError(f"{source}, row {row}: its image {reason}.") from None


def _stored(paths: Any) -> Any:
    if isinstance(paths, list):
        return [_stored(path) for path in paths]
    return None if paths is None else {"bytes": None, "path": paths}


def _external_paths(dataset: Dataset, column: str) -> list[tuple[int, str]]:
    """Row and path of every image that is not stored in the data set itself."""
    found: list[tuple[int, str]] = []
    start = 0
    for table in dataset.select_columns([column]).with_format("arrow").iter(batch_size=1000):
        values = table[column].combine_chunks()
        rows = pa.array(range(start, start + len(table)))
        start += len(table)
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            rows, values = rows.take(pc.list_parent_indices(values)), pc.list_flatten(values)
        paths = pc.struct_field(values, "path")
        outside = pc.and_(pc.is_valid(paths), pc.is_null(pc.struct_field(values, "bytes")))
        found += zip(rows.filter(outside).to_pylist(), paths.filter(outside).to_pylist(), strict=True)
    return found
