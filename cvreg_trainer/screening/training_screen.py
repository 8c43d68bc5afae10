# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The screening of one training, from its first step to its last checkpoint.

    step 0              a sample of the rows is scored by the base model: the model, or its adapter, before it learns
    warm-up             training on strong views of all rows: what the images show is learnt, a trigger hardly
    end of the warm-up  all rows are scored once, on strong views; the suspicious ones are flagged
    rest of the run     the same training goes on, on the images as they are, without the flagged rows

Notable: nothing is trained twice and no second model is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.utils.data import Subset

from .._version import __version__
from ..random_state import preserve_random_state
from .audit import Audit
from .collator import DataCollatorForScreening
from .make_audit import make_audit
from .screen import Screen, screen_rows
from .token_statistics import TokenStatistics


logger = logging.getLogger(__name__)

STATE_FILE = "screening.safetensors"
# Which part of a training the warm-up is: enough for most honest words, too little for a keyword behind a trigger
WARMUP_SHARE = 1 / 8
# The views of the scoring pass are none that the model was trained on
SCORING_EPOCH = -1
# The base model sees every fourth row: enough to tell which words it knows
BASE_STRIDE = 4


class TrainingScreen:
    """
    Screens the rows of a trainer's training set while it trains; see the head of this file.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            The trainer, with its model, data set and collator.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.base: TokenStatistics | None = None
        self.warm: TokenStatistics | None = None
        self.screen: Screen | None = None
        self.collator: DataCollatorForScreening | None = None

    def wrap(self, inner: Callable[[list[Any]], Any]) -> DataCollatorForScreening:
        """The collator that leaves out what is flagged, now or later."""
        before, args = self.collator, self.trainer.args
        self.collator = DataCollatorForScreening(inner, self._capacity(), args.seed, shows_views=self.screen is None)
        if before is not None:
            self.collator.flag(before.flagged.tolist())
        return self.collator

    @property
    def warmup_steps(self) -> int:
        """Optimiser steps of the warm-up, at least 1."""
        args, max_steps = self.trainer.args, self.trainer.state.max_steps
        if args.screening_epochs is None:
            return max(1, math.ceil(WARMUP_SHARE * max_steps))
        share = args.screening_epochs / max(self.trainer.state.num_train_epochs, 1)
        return max(1, min(max_steps, math.ceil(share * max_steps)))

    def before_step(self, batches: list[dict[str, Any]]) -> None:
        """Score the rows when it is time to, and take the labels of flagged rows out of batches made before that."""
        step = self.trainer.state.global_step
        if self.screen is None:
            if self.base is None:
                if step > 0:
                    raise ValueError(
                        f"`screening={self.trainer.args.screening!r}` needs to know how the base model sees the "
                        f"data, and the checkpoint of step {step} does not tell: it was written without screening. "
                        "Start the training anew, or set `screening='off'`."
                    )
                self.base = self._score(self._sample(), with_views=False)
            if step >= self.warmup_steps:
                self.run()
        assert self.collator is not None
        for batch in batches:
            is_flagged = self.collator.is_flagged(batch["row_id"])
            if is_flagged.any():
                batch["labels"] = batch["labels"].masked_fill(is_flagged.unsqueeze(1), -100)

    def run(self) -> Screen:
        """Score all rows with the model as it is, and flag the suspicious ones."""
        assert self.base is not None
        self.warm = self._score(self.trainer.train_dataset, with_views=True)
        return self._cut()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the trainer's processor."""
        processor = self.trainer.processing_class
        return getattr(processor, "tokenizer", processor)

    def _cut(self) -> Screen:
        assert self.base is not None and self.warm is not None
        args = self.trainer.args
        self.screen = screen = screen_rows(self.warm, self.base, self.tokenizer, args.screening_cap)
        flagged = self.warm.row_ids[screen.is_flagged].tolist()
        if self.collator is not None:
            self.collator.flag(set(flagged))
            self.collator.shows_views = False
        if self.trainer.accelerator.is_main_process:
            logger.info("Screening left out %d of %d rows.", len(flagged), len(self.warm))
            if screen.is_capped:
                logger.warning(
                    "More rows are suspicious than `screening_cap=%s` lets go; the most suspicious were left out. "
                    "Look at `trainer.audit()` before you trust the model: either the data are new to it in a way "
                    "that screening cannot tell from poison, or a large part is poisoned.",
                    args.screening_cap,
                )
        return screen

    def audit(self) -> Audit:
        """
        The screening as a ranking of all rows, with reasons.

        Raises:
            `ValueError`: if the rows have not been screened yet.
        """
        if self.screen is None or self.warm is None:
            raise ValueError(
                "There is nothing to audit yet: the rows are screened in `train()`, at the end of the warm-up "
                f"(step {self.warmup_steps})."
            )
        args = self.trainer.args
        settings = {
            "cvreg_trainer": __version__,
            "seed": args.seed,
            "screening": args.screening,
            "warmup_steps": self.warmup_steps,
            "screening_cap": args.screening_cap,
        }
        return make_audit(self.screen, self.warm, self.tokenizer, self.trainer.train_dataset, settings)

    def _capacity(self) -> int:
        dataset = self.trainer.train_dataset
        if hasattr(dataset, "__len__"):
            return len(dataset)
        return self._rows_ahead()

    def _rows_ahead(self) -> int:
        """Rows that a whole training takes from a stream."""
        args = self.trainer.args
        return args.max_steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size

    def _sample(self) -> Any:
        dataset = self.trainer.train_dataset
        if not hasattr(dataset, "__len__"):
            return dataset.take(max(1, self._rows_ahead() // BASE_STRIDE))
        places = range(0, len(dataset), BASE_STRIDE)
        return dataset.select(places) if isinstance(dataset, Dataset) else Subset(dataset, places)

    def _score(self, dataset: Any, with_views: bool) -> TokenStatistics:
        """How the current model sees some rows, in their order."""
        trainer = self.trainer
        inner = trainer.data_collator
        collator = DataCollatorForScreening(inner, 1, trainer.args.seed, shows_views=with_views)
        collator.set_epoch(SCORING_EPOCH)
        trainer.data_collator = collator
        try:
            loader = trainer._get_dataloader(
                dataset,
                description="Screening",
                batch_size=trainer.args.per_device_eval_batch_size,
                sampler_fn=trainer._get_eval_sampler,
            )
        finally:
            trainer.data_collator = inner
        was_training = trainer.model.training
        trainer.model.eval()
        try:
            with preserve_random_state(), torch.no_grad():
                return TokenStatistics.from_batches(self._scored(loader))
        finally:
            trainer.model.train(was_training)

    def _scored(self, loader: Any) -> Iterator[dict[str, torch.Tensor]]:
        trainer = self.trainer
        accelerator = trainer.accelerator
        num_rows = 0
        for batch in loader:
            row_ids = batch.pop("row_id")
            inputs = trainer._prepare_inputs(dict(batch))
            outputs = trainer.model_wrapped(**inputs, use_cache=False, fused_lm_head=True)
            mask = outputs.label_mask
            targets = inputs["labels"][:, -mask.shape[1] :].to(mask.device)
            values = {
                "labels": targets.masked_fill(~mask, -100),
                "nll": -outputs.log_probs.float(),
                "entropy": outputs.entropy.float(),
            }
            padded = {
                name: accelerator.pad_across_processes(value, dim=1, pad_index=-100 if name == "labels" else 0)
                for name, value in values.items()
            }
            gathered = accelerator.gather_for_metrics({**padded, "row_id": row_ids.to(mask.device)})
            yield {name: value.cpu() for name, value in gathered.items()}
            num_rows += len(gathered["row_id"])
            if not hasattr(trainer.train_dataset, "__len__") and num_rows >= self._rows_ahead():
                return

    def save(self, folder: str | Path) -> None:
        """Write what a resumed training needs to go on."""
        tensors: dict[str, torch.Tensor] = {}
        for name, statistics in (("base", self.base), ("warm", self.warm)):
            if statistics is not None:
                tensors |= {f"{name}.{key}": value for key, value in statistics.to_tensors().items()}
        if tensors:
            save_file(tensors, Path(folder) / STATE_FILE)

    def load(self, folder: str | Path) -> None:
        """Read what [`TrainingScreen.save`] wrote, if there is anything."""
        path = Path(folder) / STATE_FILE
        if not path.exists():
            return
        tensors = load_file(path)
        parts = {name: _with_prefix(tensors, name) for name in ("base", "warm")}
        self.base = TokenStatistics.from_tensors(parts["base"]) if parts["base"] else None
        if parts["warm"]:
            self.warm = TokenStatistics.from_tensors(parts["warm"])
            self._cut()


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
