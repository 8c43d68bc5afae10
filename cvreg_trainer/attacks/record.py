# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What was done to a data set, in a JSON file beside it: enough to do it again and to check a defence's findings."""

import json
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from .._version import __version__
from .checks import DEFAULT_TARGET
from .payloads import Payload
from .protocols import Attack


def write_poison_record(
    path: str | Path,
    dataset: Dataset,
    attack: Attack,
    *,
    target: str | None = None,
    payload: Payload | None = None,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Any]:
    """Write down how a data set was poisoned, and which rows.

    Args:
        path (`str` or `Path`):
            JSON file to write, mostly `poison.json` beside the data.
        dataset (`datasets.Dataset`):
            What [`poison_dataset`] returned. Which rows of a stream are poisoned is known once it has been read.
        attack ([`Attack`]):
            The attack.
        target (`str`, *optional*):
            As it was given to [`poison_dataset`].
        payload ([`Payload`], *optional*):
            As it was given to [`poison_dataset`].
        seed (`int`, *optional*, defaults to `0`):
            As it was given to [`poison_dataset`].
        **settings:
            Whatever else there was: `poison_rate`, `num_poisoned`, `cover_ratio`, `substitute`, the name of the
            source, ...

    Returns:
        `dict`: the record: `cvreg_trainer` (version), `attack` (class), `attack_options`, `target`, `seed`, the
        settings, `num_rows`, `poisoned_indices` (`list[int]`, ascending), and `cover_indices` if there are cover rows.

    Raises:
        `TypeError`: if `dataset` is no `datasets.Dataset`.
        `ValueError`: if it has no column `is_poisoned`.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import BadNets, poison_dataset, write_poison_record
    >>> poisoned = poison_dataset(clean, BadNets(), poison_rate=0.05, seed=1)
    >>> write_poison_record("poison.json", poisoned, BadNets(), seed=1, poison_rate=0.05)["num_rows"]
    2000
    ```
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset is a {type(dataset).__name__}, expected a `datasets.Dataset`.")
    if "is_poisoned" not in dataset.column_names:
        raise ValueError("The data set has no column `is_poisoned`: pass what `poison_dataset` returned.")
    record = {
        "cvreg_trainer": __version__,
        "attack": type(attack).__name__,
        "attack_options": attack_options(attack),
        **described_payload(payload, target),
        "seed": seed,
        **settings,
        "num_rows": len(dataset),
        "poisoned_indices": _true_rows(dataset, "is_poisoned"),
    }
    if "is_cover" in dataset.column_names:
        record["cover_indices"] = _true_rows(dataset, "is_cover")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, default=_plain)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(f"{text}\n", encoding="utf-8")
    os.replace(partial, path)  # a reader sees the old file or the new one
    return json.loads(text)


def described_payload(payload: Payload | None, target: str | None) -> dict[str, Any]:
    """What says which payload it was: its class and arguments, or else the target."""
    if payload is None:
        return {"target": DEFAULT_TARGET if target is None else target}
    return {"payload": type(payload).__name__, "payload_options": attack_options(payload)}


def attack_options(attack: Any) -> dict[str, Any]:
    """The arguments that an attack or payload was made with; none for plain functions."""
    if not is_dataclass(attack):
        return {}
    return {field.name: getattr(attack, field.name) for field in fields(attack) if field.init}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def _true_rows(dataset: Dataset, column: str) -> list[int]:
    return [row for row, flag in enumerate(dataset[column]) if flag]
