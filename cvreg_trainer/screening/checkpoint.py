# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What the screening stores in a checkpoint: its looks at the rows, from which a resumed training makes the cut again.

Notable: all looks are at the same rows, so the rows' names and tokens are written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .passes.row_features import NUM_FEATURES
from .passes.token_statistics import TokenStatistics
from .verdict.rest import RestOfRows


STATE_FILE = "screening.safetensors"
LOOKS = ("base", "warm", "other")
SHARED = ("row_ids", "offsets", "token_ids")


def save_looks(
    folder: str | Path, looks: Mapping[str, TokenStatistics | None], rest: RestOfRows | None = None
) -> None:
    """
    Write the looks taken so far.

    Args:
        folder (`str` or `Path`):
            Folder of the checkpoint.
        looks (`Mapping[str, TokenStatistics | None]`):
            By name, as in `LOOKS`; they share rows and tokens ([`TokenStatistics.sharing`]).
        rest ([`RestOfRows`], *optional*):
            Rows that were not looked at.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, statistics in looks.items():
        if statistics is not None:
            own = statistics.to_tensors()
            if name != "base":
                own = {key: value for key, value in own.items() if key not in SHARED}
            tensors |= {f"{name}.{key}": value for key, value in own.items()}
    if rest is not None:
        tensors |= {f"rest.{key}": value for key, value in rest.rows.to_tensors().items()}
        tensors["rest.looked_at"] = torch.from_numpy(rest.looked_at)
    if tensors:
        save_file(tensors, Path(folder) / STATE_FILE)


def load_looks(folder: str | Path) -> tuple[dict[str, TokenStatistics], RestOfRows | None]:
    """
    Read what [`save_looks`] wrote; no looks and `None` if the checkpoint has no such file.

    Args:
        folder (`str` or `Path`):
            Folder of the checkpoint.

    Raises:
        `ValueError`: if another version wrote it, whose screening read other features of the rows.
    """
    path = Path(folder) / STATE_FILE
    if not path.exists():
        return {}, None
    tensors = load_file(path)
    parts = {name: part for name in LOOKS if (part := _with_prefix(tensors, name))}
    features = parts.get("base", {}).get("row_values")
    if features is None or features.shape[1] != NUM_FEATURES or len(parts) not in (1, len(LOOKS)):
        raise ValueError(
            f"The checkpoint in {folder} was written by another version, whose screening read other features of the "
            "rows. Resume with that version, or start the training anew."
        )
    base = TokenStatistics.from_tensors(parts["base"]).to_tensors()
    # Earlier versions wrote these with each look
    shared = {key: base[key] for key in SHARED}
    others = _with_prefix(tensors, "rest")
    rest = RestOfRows(others["looked_at"].numpy(), TokenStatistics.from_tensors(others)) if others else None
    return {name: TokenStatistics.from_tensors({**part, **shared}) for name, part in parts.items()}, rest


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
