# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a checkpoint holds of the screening: its looks at the rows, of which the cut is made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .token_statistics import TokenStatistics


STATE_FILE = "screening.safetensors"
LOOKS = ("base", "warm", "other")


def save_looks(folder: str | Path, looks: Mapping[str, TokenStatistics | None]) -> None:
    """
    Write the looks that there are so far.

    Args:
        folder (`str` or `Path`):
            Folder of the checkpoint.
        looks (`Mapping[str, TokenStatistics | None]`):
            By their names, which are `LOOKS`.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, statistics in looks.items():
        if statistics is not None:
            tensors |= {f"{name}.{key}": value for key, value in statistics.to_tensors().items()}
    if tensors:
        save_file(tensors, Path(folder) / STATE_FILE)


def load_looks(folder: str | Path) -> dict[str, TokenStatistics]:
    """
    Read what [`save_looks`] wrote; nothing where there is nothing.

    Args:
        folder (`str` or `Path`):
            Folder of the checkpoint.

    Raises:
        `ValueError`: if an earlier version wrote it, whose screening read less of the rows.
    """
    path = Path(folder) / STATE_FILE
    if not path.exists():
        return {}
    tensors = load_file(path)
    parts = {name: _with_prefix(tensors, name) for name in LOOKS}
    looks = {name: TokenStatistics.from_tensors(part) for name, part in parts.items() if part}
    if not looks["base"].row_values.shape[1] or ("warm" in looks) != ("other" in looks):
        raise ValueError(
            f"The checkpoint in {folder} was written by an earlier version, whose screening read less of the "
            "rows. Resume with that version, or start the training anew."
        )
    return looks


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
