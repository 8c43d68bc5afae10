# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""One pass over rows in the middle of a training, without any effect on the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm
from transformers.trainer_utils import has_length

from ...data.rows import find_images, row_digest
from ...random_state import preserve_random_state
from .collator import (
    SCREENING_KEYS,
    DataCollatorForOthers,
    DataCollatorForScreening,
    DataCollatorWithFeatures,
    row_id,
)
from .row_features import project_states
from .token_statistics import TokenStatistics


# No training has this epoch, so the model was not trained on the views of a scoring pass
SCORING_EPOCH = -1
NUM_OTHERS = 8  # rows tried for one with as many pictures


def score_rows(
    trainer: Any,
    dataset: Any,
    with_views: bool,
    reads_rows: bool = True,
    keeps: str | None = None,
    places: np.ndarray | None = None,
) -> TokenStatistics:
    """
    How a trainer's model, as it is, sees some rows.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer in its training loop: the model is wrapped for it.
        dataset:
            The rows, map-style or streamed.
        with_views (`bool`):
            Whether to show strong views of the images.
        reads_rows (`bool`, *optional*, defaults to `True`):
            Whether these views are made from the images in the rows; see [`finds_images_in_rows`].
        keeps (`str`, *optional*):
            What to keep as `row_values`: `"features"` of the rows ([`row_features`]), `"states"` of the model before
            it sees the response (projected), or, with other rows' images in the place of a row's own, `"others"`:
            whether there was another row.
        places (`np.ndarray` of shape `(R,)`, int64, *optional*):
            Positions of the rows to score, ascending; all by default. Others' images may come from any row.

    Returns:
        [`TokenStatistics`]: the rows in their order. Tokens and `row_values` are on the main process only; the others
        get the names of the rows. With `"others"`, only the likelihoods are kept.

    Raises:
        `ValueError`: if a row's image cannot be read, naming the row.
    """
    collator: Any = DataCollatorForScreening(trainer.data_collator, 1, trainer.args.seed, with_views, reads_rows)
    collator.set_epoch(SCORING_EPOCH)
    if keeps == "features":
        collator = DataCollatorWithFeatures(collator)
    elif keeps == "others":
        collator = DataCollatorForOthers(collator)
    loader = _make_loader(trainer, dataset, collator, places, with_others=keeps == "others")
    was_training = trainer.model.training
    trainer.model.eval()
    try:
        with preserve_random_state(), torch.no_grad(), trainer.naming_rows(dataset):
            what = "others' pictures" if keeps == "others" else "the warmed-up model"
            task = f"Screening by {what if with_views else 'the base model'}"
            return TokenStatistics.from_batches(_scored(trainer, loader, task, keeps))
    finally:
        trainer.model.train(was_training)


def read_rows(trainer: Any, dataset: Any, places: np.ndarray, reads_rows: bool = True) -> TokenStatistics:
    """
    Tokens and features of some rows, without running a model.

    Args:
        trainer ([`CrossViewDefenseTrainer`]), dataset, places, reads_rows:
            As [`score_rows`] takes them.

    Returns:
        [`TokenStatistics`]: on the main process the rows' tokens and features ([`row_features`]).

    Raises:
        `ValueError`: if a row's image cannot be read, naming the row.
    """
    inner = DataCollatorForScreening(trainer.data_collator, 1, trainer.args.seed, False, reads_rows)
    loader = _make_loader(trainer, dataset, DataCollatorWithFeatures(inner), places)
    with preserve_random_state(), trainer.naming_rows(dataset):
        return TokenStatistics.from_batches(_read(trainer, loader))


def read_row_ids(trainer: Any, dataset: Any) -> np.ndarray:
    """
    The names of some rows, by their content as it is now.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer in its training loop.
        dataset:
            The rows, map-style or streamed.

    Returns:
        `np.ndarray` of shape `(N,)`, int64: in the order of the rows, the same on every rank.
    """
    gather, ids = trainer.accelerator.gather_for_metrics, []
    with preserve_random_state(), trainer.naming_rows(dataset):
        loader = _make_loader(trainer, dataset, _collate_row_ids)
        for batch in _with_progress(trainer, loader, "Comparing with the rows that were screened"):
            ids.append(gather(batch["row_id"].to(trainer.accelerator.device)).cpu().numpy())
    return np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)


def _collate_row_ids(rows: list[Any]) -> dict[str, torch.Tensor]:
    return {"row_id": torch.tensor([row_id(row_digest(row)) for row in rows], dtype=torch.int64)}


class _RowsWithOthers(Dataset[tuple[Any, Any]]):
    """Some rows, each with another one with as many pictures: the same for any batch size and number of processes."""

    def __init__(self, rows: Any, places: np.ndarray, seed: int) -> None:
        self.rows, self.places = rows, places
        # Rows that follow each other are often about one picture
        number = len(rows)
        self.step = int(np.random.Generator(np.random.PCG64(seed)).integers(number // 3 + 1, max(number // 2, 2) + 1))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        place = int(self.places[number])
        row = self.rows[place]
        num_images = len(find_images(row))
        for turn in range(1, NUM_OTHERS + 1) if num_images else ():
            other = self.rows[(place + turn * self.step) % len(self.rows)]
            if len(find_images(other)) == num_images:
                return row, other
        return row, None


def _make_loader(
    trainer: Any,
    dataset: Any,
    collator: Callable[[list[Any]], Any],
    places: np.ndarray | None = None,
    with_others: bool = False,
) -> Any:
    """A loader that gives every row once and in order, whatever the training's own loader does."""
    args, is_streamed = trainer.args, not has_length(dataset)
    if is_streamed:
        collator = trainer._get_collator_with_removed_columns(collator)
        rows = dataset
    else:
        rows = trainer.rows_for_collator(dataset)
        if with_others:
            rows = _RowsWithOthers(rows, np.arange(len(rows)) if places is None else places, args.seed)
        elif places is not None:
            rows = Subset(rows, places.tolist())
    loader = DataLoader(
        rows,
        batch_size=args.per_device_eval_batch_size,
        collate_fn=collator,
        num_workers=args.dataloader_num_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        prefetch_factor=args.dataloader_prefetch_factor,
        pin_memory=args.dataloader_pin_memory,
    )
    return trainer.accelerator.prepare(loader)


def _with_progress(trainer: Any, loader: Any, task: str) -> Iterator[Any]:
    is_quiet = trainer.args.disable_tqdm or not trainer.is_world_process_zero()
    return iter(tqdm(loader, desc=task, unit="batch", leave=False, disable=is_quiet))


def _scored(trainer: Any, loader: Any, task: str, keeps: str | None) -> Iterator[dict[str, torch.Tensor]]:
    accelerator = trainer.accelerator
    for batch in _with_progress(trainer, loader, task):
        row_ids, _, row_values = (batch.pop(name, None) for name in SCREENING_KEYS)
        inputs = trainer._prepare_inputs(dict(batch))
        outputs = trainer.model_wrapped(**inputs, use_cache=False, single_view=True)
        number = len(row_ids)  # without the row that `DataCollatorWithAnImage` may have added
        mask = outputs.label_mask[:number]
        targets = inputs["labels"][:number, -mask.shape[1] :].to(mask.device)
        values = {
            "labels": targets.masked_fill(~mask, -100),
            "nll": -outputs.log_probs[:number].float(),
        }
        if keeps != "others":
            values |= {"entropy": outputs.entropy[:number].float(), "top1": outputs.top1[:number]}
        if keeps == "states" and outputs.first_state is not None:
            row_values = project_states(outputs.first_state[:number]).half()
        yield _gathered(accelerator, values, row_ids, row_values)


def _read(trainer: Any, loader: Any) -> Iterator[dict[str, torch.Tensor]]:
    for batch in _with_progress(trainer, loader, "Screening reads the rows that are not looked at"):
        row_ids, row_values = batch["row_id"], batch["row_values"]
        yield _gathered(trainer.accelerator, {"labels": batch["labels"][: len(row_ids)]}, row_ids, row_values)


def _gathered(
    accelerator: Any, values: dict[str, torch.Tensor], row_ids: torch.Tensor, row_values: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """The batches of all processes, on the CPU. Processes other than the main one get only the rows' names."""
    device = values["labels"].device
    gathered: dict[str, torch.Tensor] = {
        name: accelerator.pad_across_processes(value, dim=1, pad_index=-100 if name == "labels" else 0)
        for name, value in values.items()
    }
    gathered["row_id"] = row_ids.to(device)
    if row_values is not None:
        gathered["row_values"] = row_values.to(device)
    gathered = accelerator.gather_for_metrics(gathered)
    if not accelerator.is_main_process:
        gathered = {name: value[:, :0] if value.ndim > 1 else value for name, value in gathered.items()}
    return {name: value.cpu() for name, value in gathered.items()}
