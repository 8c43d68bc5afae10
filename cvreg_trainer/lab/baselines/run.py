# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The baselines as experiments: a built-in model fine-tuned on poisoned scenes, defended by one of them, and measured.

Notable: the time of everything a baseline needs counts, an undefended training before it included. Fine-Pruning and
STRIP are given clean rows, from a split that shares no image with training and test data; the others need none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

from ...evaluation import generate_captions
from .byorn import FLAG, DataCollatorForBootstrap, MovingAverage
from .entropy_filter import SHARE as ENTROPY_SHARE
from .entropy_filter import entropy_scores
from .fine_pruning import fine_prune
from .response_filter import SHARE as RESPONSE_SHARE
from .response_filter import response_scores
from .scoring import flag_share, response_collator
from .strip import false_rejection_threshold, strip_scores
from .strong_augmentation import DataCollatorForAugmentation


CLEAN_ROWS = 100


def run_baseline(name: str, experiment: Any, data: Mapping[str, Dataset], output_dir: str | Path) -> dict[str, Any]:
    """
    Run an experiment with a baseline as its defence, on one thread of a CPU.

    Args:
        name (`str`):
            A name of `BASELINES`.
        experiment ([`Experiment`]):
            Settings; its `config` is to be empty, or the baseline comes on top of what it asks for.
        data (`Mapping[str, Dataset]`):
            What [`Experiment.make_data`] gives.
        output_dir (`str` or `Path`):
            Where the model goes, and in a folder `undefended` the model before its defence, where there is one.

    Returns:
        `dict[str, Any]`: what [`Experiment.run`] gives, of the last training; `seconds` of everything but the
        evaluation; for filters `rows_dropped` and `poisoned_rows_dropped`, for BYORn `rows_replaced` and
        `poisoned_rows_replaced`, for Fine-Pruning `pruned_share`.

    Raises:
        `ValueError`: if there is no such baseline.
    """
    if name not in BASELINES:
        raise ValueError(f"`name={name!r}` is not a baseline; choose from {', '.join(BASELINES)}.")
    torch.set_num_threads(1)
    return BASELINES[name](experiment, data, Path(output_dir))


def _run_response_filter(experiment: Any, data: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    model, processor = experiment.load_model()
    start = time.perf_counter()
    flagged = flag_share(response_scores(model, processor, data["train"]), RESPONSE_SHARE)
    return _run_on_rest(experiment, data, folder, flagged, time.perf_counter() - start)


def _run_byorn(experiment: Any, data: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    model, processor = experiment.load_model()
    start = time.perf_counter()
    flagged = flag_share(response_scores(model, processor, data["train"]), RESPONSE_SHARE)
    seconds = time.perf_counter() - start
    rows = data["train"].add_column(FLAG, flagged.tolist())
    average = MovingAverage(model)

    def answer(batch: list[dict[str, Any]]) -> list[str]:
        return generate_captions(average.model, processor, batch, max_new_tokens=experiment.max_new_tokens)

    collator = DataCollatorForBootstrap(response_collator(model, processor, rows), answer)
    settings = replace(experiment, config={**experiment.config, "remove_unused_columns": False})
    trainer = settings.make_trainer(rows, folder, model, collator)
    trainer.add_callback(average)
    seconds += trainer.train().metrics["train_runtime"]
    replaced = {"rows_replaced": int(flagged.sum()), "poisoned_rows_replaced": _num_poisoned(data["train"], flagged)}
    return {**experiment.evaluate(trainer, data), "seconds": seconds, **replaced}


def _run_entropy_filter(experiment: Any, data: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    model, processor, seconds = _train_undefended(experiment, data, folder)
    start = time.perf_counter()
    flagged = flag_share(entropy_scores(model, processor, data["train"]), ENTROPY_SHARE)
    return _run_on_rest(experiment, data, folder, flagged, seconds + time.perf_counter() - start)


def _run_strip(experiment: Any, data: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    model, processor, seconds = _train_undefended(experiment, data, folder)
    clean = _clean_rows(experiment)
    start = time.perf_counter()
    threshold = false_rejection_threshold(strip_scores(model, processor, clean, clean))
    flagged = strip_scores(model, processor, data["train"], clean) > threshold
    return _run_on_rest(experiment, data, folder, flagged, seconds + time.perf_counter() - start)


def _run_fine_pruning(experiment: Any, data: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    model, processor, seconds = _train_undefended(experiment, data, folder)
    clean = _clean_rows(experiment)
    trainer = experiment.make_trainer(clean, folder, model)
    start = time.perf_counter()
    share = fine_prune(model, processor, clean, trainer.train)
    seconds += time.perf_counter() - start
    return {**experiment.evaluate(trainer, data), "seconds": seconds, "pruned_share": share}


def _run_strong_augmentation(experiment: Any, data: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    rows = data["train"]
    model, processor = experiment.load_model()
    collator = DataCollatorForAugmentation(response_collator(model, processor, rows), seed=experiment.seed)
    trainer = experiment.make_trainer(rows, folder, data_collator=collator)
    trainer.add_callback(_SetEpoch(collator))
    seconds = trainer.train().metrics["train_runtime"]
    return {**experiment.evaluate(trainer, data), "seconds": seconds}


BASELINES: dict[str, Callable[[Any, Mapping[str, Dataset], Path], dict[str, Any]]] = {
    "fine_pruning": _run_fine_pruning,
    "strip": _run_strip,
    "entropy_filter": _run_entropy_filter,
    "response_filter": _run_response_filter,
    "byorn": _run_byorn,
    "strong_augmentation": _run_strong_augmentation,
}


class _SetEpoch(TrainerCallback):
    def __init__(self, collator: DataCollatorForAugmentation) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.collator.set_epoch(round(state.epoch or 0))


def _clean_rows(experiment: Any) -> Dataset:
    return experiment.make_rows(CLEAN_ROWS, "validation")


def _train_undefended(experiment: Any, data: Mapping[str, Dataset], folder: Path) -> tuple[Any, Any, float]:
    """The model trained on all rows, its processor, and the seconds it took."""
    trainer = experiment.make_trainer(data["train"], folder / "undefended")
    seconds = trainer.train().metrics["train_runtime"]
    trainer.save_model()
    model, processor = experiment.load_model()
    return type(model).from_pretrained(folder / "undefended").eval(), processor, seconds


def _run_on_rest(
    experiment: Any, data: Mapping[str, Dataset], folder: Path, flagged: np.ndarray, seconds: float
) -> dict[str, Any]:
    """The experiment, from the built-in model again, without the flagged rows."""
    train = data["train"]
    result = experiment.run({**data, "train": train.select(np.flatnonzero(~flagged))}, folder)
    return {
        **result,
        "seconds": seconds + result["steps"] * result["seconds_per_step"],
        "rows_dropped": int(flagged.sum()),
        "poisoned_rows_dropped": _num_poisoned(train, flagged),
    }


def _num_poisoned(rows: Dataset, flagged: np.ndarray) -> int:
    """How many of the flagged rows are known to be poisoned."""
    return int(flagged[np.array(rows["is_poisoned"])].sum()) if "is_poisoned" in rows.column_names else 0
