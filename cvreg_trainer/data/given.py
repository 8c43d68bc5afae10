# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The data sets that a user hands to a trainer, on their way to its collator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl import SFTConfig

from .adapting import adapt_dataset, find_image_tokens, row_check
from .row_checks import check_not_empty
from .skipping import SkippedRows, skip_bad_rows


SKIPPED_FILE = "skipped_rows.jsonl"

logger = logging.getLogger(__name__)


@dataclass
class GivenData:
    """
    Data sets as a user gives them, and as a trainer takes them: without the rows that cannot be trained on, if the
    user asked for this, and in the form of TRL's collators, unless the user has a collator.

    Args:
        args ([`~trl.SFTConfig`]):
            Of the trainer.
        collate (`Callable`, *optional*):
            The user's own collator. It gets the rows as they are.
        processing_class ([`~transformers.ProcessorMixin`] or [`~transformers.PreTrainedTokenizerBase`], *optional*):
            As the user gave it.
        is_formatted (`bool`, *optional*, defaults to `False`):
            Whether a `formatting_func` makes the texts.
        opens_images (`bool`, *optional*, defaults to `False`):
            Whether views are made of the images, so that they have to be opened before the processor does.
        skips_bad_rows (`bool`, *optional*, defaults to `False`):
            Whether rows that cannot be trained on are left out; otherwise they are errors.
    """

    args: SFTConfig
    collate: Callable[[list[Any]], Any] | None = None
    processing_class: Any = None
    is_formatted: bool = False
    opens_images: bool = False
    skips_bad_rows: bool = False
    train_dataset: Any = field(default=None, init=False)
    skipped: SkippedRows = field(default_factory=SkippedRows, init=False)

    def to_train_on(self, dataset: Any) -> Any:
        """The training set; what was given is kept in `train_dataset`, and what was left out of it in `skipped`."""
        self.train_dataset = dataset
        dataset, self.skipped = self._skip(dataset, "`train_dataset`")
        return self._adapt(dataset, "`train_dataset`")

    def to_evaluate_on(self, given: Any) -> Any:
        """An evaluation set, or several by name."""
        if isinstance(given, dict):
            return {name: self.to_evaluate_on(dataset) for name, dataset in given.items()}
        dataset, _ = self._skip(given, "`eval_dataset`")
        return self.to_predict(dataset)

    def to_predict(self, dataset: Any) -> Any:
        """A data set of which each row has its prediction: none is left out."""
        return self._adapt(dataset, "`eval_dataset`")

    def list_skipped(self) -> None:
        """Write the rows that a training leaves out, with their reasons, beside its checkpoints."""
        if self.skipped.reasons and self.args.should_save:
            self.skipped.write(Path(str(self.args.output_dir)) / SKIPPED_FILE)

    def log_skipped(self) -> None:
        """Say once more, after a training, which rows it left out."""
        if self.skipped.reasons and self.args.should_log:
            logger.warning("Trained without rows of `train_dataset`: %s", self.skipped)

    def _asked(self) -> dict[str, Any]:
        return {
            "open_images": self.opens_images,
            "image_tokens": find_image_tokens(self.processing_class),
            "is_formatted": self.is_formatted,
        }

    def _skip(self, dataset: Any, source: str) -> tuple[Any, SkippedRows]:
        if not self.skips_bad_rows or dataset is None or isinstance(dataset, str):
            return dataset, SkippedRows()
        check = row_check(dataset, **self._asked()) if self.collate is None else None
        dataset, skipped = skip_bad_rows(dataset, source, check, self.collate, self.args.disable_tqdm)
        if skipped.reasons and self.args.should_log:
            logger.warning("%s: %s", source, skipped)
        return dataset, skipped

    def _adapt(self, dataset: Any, source: str) -> Any:
        if dataset is None or isinstance(dataset, str):
            return dataset
        check_not_empty(dataset, source)
        if self.collate is not None:
            return dataset
        return adapt_dataset(dataset, source, text_field=self.args.dataset_text_field, **self._asked())
