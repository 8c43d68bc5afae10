# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What several commands have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset


def add_data_options(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Add `--data`, `--split` and `--image_root`; `note` is put behind what `--data` says."""
    parser.add_argument(
        "--data",
        required=True,
        help="folder written by save_to_disk, .parquet or .json(l) file (LLaVA's and ShareGPT's formats, too), folder "
        f"of such files or of images, or name on the hub{note}",
    )
    parser.add_argument("--split", help="split to take, where there are several")
    parser.add_argument(
        "--image_root",
        metavar="FOLDER",
        help="folder that image paths are relative to, and that images may lie in (default: the data's own folder)",
    )


def open_data(options: argparse.Namespace, cache_dir: Any = None) -> Dataset:
    """
    The data set of these options.

    Raises:
        `OSError` or `ValueError`: see [`open_dataset`]; also if its rows cannot be trained on.
    """
    from ..data import open_dataset
    from ..data.row_checks import check_columns, check_rows, text_rows

    dataset = open_dataset(options.data, options.split, cache_dir=cache_dir, image_root=options.image_root)
    source = f"--data {options.data}"
    check_columns(dataset.column_names, source)
    check_rows(text_rows(dataset), source)
    return dataset
