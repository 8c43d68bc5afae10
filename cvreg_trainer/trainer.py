# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
SFTTrainer with the screening of its rows, and with the paper's three terms added to its loss.

Notable:
- The task loss, its metrics and its errors are SFTTrainer's own code: `compute_loss` hands it, in place of the
  model, a callable that runs both views and keeps what the three terms need.
- Every term is a sum over the micro-batch divided by the count of the global batch (all micro-batches of the optimiser
  step, all ranks), so neither loss nor gradient depends on how a global batch is split.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import is_peft_model
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length
from trl import SFTTrainer

from .collators.choice import choose_collator
from .collators.cross_view import DataCollatorForCrossView
from .collators.seeded_views import has_image, holds_pixels
from .collators.with_an_image import DataCollatorWithAnImage
from .config import CrossViewDefenseConfig, as_cross_view_config
from .data.adapting import find_image_token_ids, has_images, is_torch_dataset, preview
from .data.broken_rows import naming_rows
from .data.given import GivenData
from .data.row_checks import first_rows
from .data.skipping import SkippedRows
from .head import (
    CrossViewHead,
    CrossViewOutput,
    add_cross_view_head,
    is_encoder_decoder,
    trl_head_serves,
)
from .incompatible import refuse_incompatible_options
from .losses.objective import Counts, CrossViewObjective
from .model_card import PAPER, defence_section, with_section
from .models import flamingo  # noqa: F401  registers Flamingo with the Auto classes, for models given by path
from .models.renamed_weights import load_renamed_weights
from .perturbations import PatchPerturbation
from .random_state import preserve_random_state
from .safeguards.checkpoints import STATE_FILE, check_checkpoint, last_whole_checkpoint, write_options
from .safeguards.first_row import check_head, check_images, collate_example
from .safeguards.non_finite import non_finite_error
from .safeguards.trainable import explaining_quantised_parts, keep_quantised_weights, refuse_frozen_parts
from .screening.audit.audit import Audit
from .screening.passes.collator import SCREENING_KEYS
from .screening.training_screen import TrainingScreen
from .start_report import StartReportCallback, start_report


class CrossViewDefenseTrainer(SFTTrainer):
    """
    Trainer for supervised fine-tuning on data that may hide backdoors: a drop-in replacement of [`~trl.SFTTrainer`].

    It defends in two ways, which can be combined:

    - Screening (`screening="drop"`) finds suspicious rows in a warm-up and trains without them; the audit shows them.
      Look at it before you trust the model. `screening="report"` only shows them.
    - The cross-view loss (a lambda above 0) runs each row with an image in two views, the original and one with a
      perturbed rectangle, and adds feature consistency, output discrepancy and an entropy hinge to the loss (A
      Patch-based Cross-view Regularized Framework for Backdoor Defense in Multimodal Large Language Models, section
      3).

    With screening off and the three lambdas at 0 it trains as SFTTrainer does. Evaluation, generation and what is
    saved are SFTTrainer's.

    Beyond SFTTrainer it takes torch map-style data sets, images inside `messages` or given by path or bytes, and
    models that SFTTrainer 1.16 cannot train (BLIP-2, encoder-decoders).

    Example:

    ```python
    >>> from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer

    >>> trainer = CrossViewDefenseTrainer(
    ...     model="llava-hf/llava-1.5-7b-hf",
    ...     args=CrossViewDefenseConfig("out", learning_rate=2e-4),
    ...     train_dataset=dataset,
    ...     peft_config=LoraConfig(target_modules="all-linear"),
    ... )
    >>> trainer.train()
    >>> trainer.audit("out/audit")  # open out/audit/audit.html
    ```

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            As in [`~trl.SFTTrainer`].
        args ([`CrossViewDefenseConfig`] or [`~transformers.TrainingArguments`], *optional*):
            Configuration. Arguments of another class are converted, with the defence's defaults.
        data_collator ([`~transformers.DataCollator`], *optional*):
            Any collator; the trainer wraps it for training. Defaults to TRL's, and for encoder-decoders to
            [`DataCollatorForEncoderDecoder`].
        train_dataset ([`~datasets.Dataset`], [`~datasets.IterableDataset`] or `torch.utils.data.Dataset`):
            As in [`~trl.SFTTrainer`]; a torch data set must be map-style. Its rows reach the collator as they are.
        eval_dataset:
            As in [`~trl.SFTTrainer`], with the same additions.
        processing_class ([`~transformers.PreTrainedTokenizerBase`] or [`~transformers.ProcessorMixin`], *optional*):
            As in [`~trl.SFTTrainer`].
        **kwargs:
            Everything else that [`~trl.SFTTrainer`] takes (`peft_config`, `quantization_config`, `callbacks`, ...).

    Raises:
        `ValueError`: if an option cannot work with a defence, naming the option to change; if rows cannot be trained
            on or no view of their images can be made, naming the row.
    """

    args: CrossViewDefenseConfig
    model: PreTrainedModel
    _head_is_checked = False
    # Only for engines that shard the model
    _row_with_image: Any = None
    _tag_names = ["trl", "sft", "cross-view-defense"]
    _name = "CrossViewDefense"
    _paper = PAPER

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        **kwargs: Any,
    ) -> None:
        args = as_cross_view_config(args, model)
        if isinstance(data_collator, DataCollatorForCrossView):
            data_collator = data_collator.inner
        self._given = GivenData(
            args,
            data_collator,
            processing_class,
            is_formatted=kwargs.get("formatting_func") is not None,
            opens_images=args.uses_cross_view_loss or args.is_screened,
            skips_bad_rows=args.on_bad_row == "skip",
        )
        train_dataset = self._given.to_train_on(train_dataset)
        eval_dataset = self._given.to_evaluate_on(eval_dataset)
        with naming_rows(train_dataset, "`train_dataset`"):
            holds_images = any(has_images(row) for row in first_rows(train_dataset))
        if args.max_length == "auto":
            args.max_length = None if holds_images else 1024
        refuse_incompatible_options(args, model, kwargs, holds_images)

        checkpointing: Any = args.activation_checkpointing_kwargs or {}
        is_reentrant = checkpointing.get("use_reentrant")
        if args.activation_checkpointing and is_reentrant and args.ddp_find_unused_parameters is None:
            # transformers turns it on for adapters; with this kind of checkpointing DDP then stops with an error
            args.ddp_find_unused_parameters = False
        is_torch = is_torch_dataset(train_dataset)
        if is_torch:
            # Its rows are ready for the collator: there are no columns to prepare or remove
            args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}  # type: ignore[dict-item]
            args.remove_unused_columns = False
        with warnings.catch_warnings(), explaining_quantised_parts():
            # PEFT reads it, and no user can change that
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            super().__init__(
                model=model,
                args=args,
                data_collator=data_collator,
                train_dataset=preview(train_dataset) if is_torch else train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                **kwargs,
            )
        if is_torch:
            self.train_dataset = train_dataset

        keep_quantised_weights(self.model)
        base_model: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        self._is_encoder_decoder = is_encoder_decoder(base_model.config)
        self._image_token_ids = find_image_token_ids(base_model.config, self.processing_class)
        if holds_images and data_collator is None:
            self.data_collator = choose_collator(self, base_model.config, self._image_token_ids)
        with self.naming_rows(self.train_dataset):
            check_images(self, self._image_token_ids, explains_errors=data_collator is None)
            if data_collator is not None and not holds_images and holds_pixels(self.example_batch):
                # The user's collator makes pixels from rows that hold none, for example from paths
                holds_images = True
                refuse_incompatible_options(args, model, kwargs, holds_images)

        collate = self.data_collator
        if data_collator is None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            self._row_with_image = next(filter(has_image, first_rows(self.rows_for_collator(), 1000)), None)
            self.data_collator = self._with_an_image(collate)
        self.uses_cross_view_loss = args.uses_cross_view_loss and holds_images
        self._head: CrossViewHead | None = None
        if self.uses_cross_view_loss or args.is_screened or (holds_images and not trl_head_serves(base_model)):
            self._head = add_cross_view_head(base_model, args.feature_layer, args.feature_pooling)
            # Under FSDP2, TRL's head gives different gradients than on one GPU (tests/test_distributed.py)
            self._head.replaces_trl_head |= self.is_fsdp_enabled
        self.add_callback(StartReportCallback(self._start_report))
        if self.uses_cross_view_loss:
            self._set_up_cross_view_loss(collate)
        self._screen: TrainingScreen | None = None
        if args.is_screened:
            self._set_up_screening()

    def _with_an_image(self, collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        """A collator whose batches have an image, where processes would otherwise wait for each other."""
        return collate if self._row_with_image is None else DataCollatorWithAnImage(collate, self._row_with_image)

    def _set_up_cross_view_loss(self, collate: Callable[[list[Any]], Any]) -> None:
        args = self.args
        # The loss is normalised over the whole accumulation window, whatever the model's class says
        self.loss_is_scaled_for_ga = True  # type: ignore[assignment]
        perturbation = PatchPerturbation(args.patch_area_min, args.patch_area_max, args.patch_operations)
        weights = (args.lambda_patch, args.lambda_discrepancy, args.lambda_entropy)
        self._objective = CrossViewObjective(weights, args.entropy_threshold, self._is_encoder_decoder)
        self._cross_view_collator = DataCollatorForCrossView(collate, perturbation, args.seed, self._image_token_ids)

    def _set_up_screening(self) -> None:
        self._screen = TrainingScreen(self)
        with preserve_random_state(), self.naming_rows(self.train_dataset):
            self._screen.check(first_rows(self.rows_for_collator()))
        self.add_callback(self._screen)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        if self._is_vision_dataset and self.args.dataset_text_field not in columns:
            # TRL's collator reads it, but its trainer drops the column
            columns.append(self.args.dataset_text_field)

    @property
    def skipped_rows(self) -> SkippedRows:
        """[`SkippedRows`]: what `on_bad_row="skip"` left out of the training set."""
        return self._given.skipped

    def naming_rows(self, dataset: Any, source: str = "`train_dataset`") -> AbstractContextManager[None]:
        """Put number, column and file of the row into errors about images; see [`naming_rows`]."""
        given = self.skipped_rows.given if dataset is self.train_dataset else None
        return naming_rows(dataset, source, self.data_collator, given)

    def rows_for_collator(self, dataset: Any = None) -> Any:
        """A data set, by default the training set, as the collator gets it: without the columns that TRL drops."""
        dataset = self.train_dataset if dataset is None else dataset
        if isinstance(dataset, Dataset) and self.args.remove_unused_columns:
            return self._remove_unused_columns(dataset)
        return dataset

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        refuse_frozen_parts(self.model)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(str(self.args.output_dir))
        if resume_from_checkpoint:
            check_checkpoint(Path(str(resume_from_checkpoint)), self.args, self.model)
        self._given.list_skipped()
        result = super().train(resume_from_checkpoint, *args, **kwargs)
        self._given.log_skipped()
        return result

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        if self._screen is not None:
            epoch_iterator = map(self._screen.exchange, epoch_iterator)
        with self.naming_rows(self.train_dataset):
            return super().get_batch_samples(epoch_iterator, num_batches, device)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        return super().evaluate(self._given.to_evaluate_on(eval_dataset), *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return super().predict(self._given.to_predict(test_dataset), *args, **kwargs)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        with self.naming_rows(dataloader.dataset, "`eval_dataset`"):
            return super().evaluation_loop(dataloader, *args, **kwargs)

    def get_train_dataloader(self) -> Any:
        collator = self.data_collator
        if self.uses_cross_view_loss:
            collator = self._with_an_image(self._cross_view_collator)
        if self._screen is not None:
            collator = self._screen.wrap(collator)
        inner, self.data_collator = self.data_collator, collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = inner

    def _run_epoch(self, model: nn.Module, epoch: int, *args: Any, **kwargs: Any) -> Any:
        if self.uses_cross_view_loss:
            self._cross_view_collator.set_epoch(epoch)
        if self._screen is not None and self._screen.collator is not None:
            self._screen.collator.set_epoch(epoch)
        return super()._run_epoch(model, epoch, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._load_renamed_weights(resume_from_checkpoint):
            return
        dtypes = {name: parameter.dtype for name, parameter in self.model.named_parameters()}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, parameter in self.model.named_parameters():
            # PEFT loads adapters in float32, also those that TRL trains in bfloat16 (on quantised models)
            parameter.data = parameter.data.to(dtypes.get(name, parameter.dtype))

    def _load_best_model(self) -> None:
        if not self._load_renamed_weights(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._screen is not None and checkpoint is not None:
            self._screen.load(checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # First, because the file that transformers writes last marks a checkpoint as whole
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            # Invalidate a checkpoint that an earlier run may have left in this folder
            (folder / STATE_FILE).unlink(missing_ok=True)
            write_options(folder, self.args, self.model)
        if self._screen is not None:
            self._screen.save(folder)
        super()._save_checkpoint(model, trial)

    def _load_renamed_weights(self, folder: str | None) -> bool:
        is_plain = not (self.is_deepspeed_enabled or self.is_fsdp_enabled or is_peft_model(self.model))
        return is_plain and folder is not None and load_renamed_weights(self.model, folder)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | int | None:
        if not self.uses_cross_view_loss:
            return super()._get_num_items_in_batch(batch_samples, device)
        counts = self._objective.count(batch_samples).to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            # Tensor-parallel ranks are given the same rows
            counts = self.accelerator.gather(counts).view(-1, len(counts)).sum(0) / self.get_tp_size()
        return self._objective.begin_step(counts).tokens

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        for name in SCREENING_KEYS:
            inputs.pop(name, None)
        if not (self.uses_cross_view_loss and self.model.training):
            given = dict(inputs)
            result = super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
            loss = result[0] if return_outputs else result
            if self._screen is not None and self.model.training and not torch.isfinite(loss):
                raise non_finite_error(self, given, {"loss": loss}, self._log_probs_of_rows(given))
            return result
        objective, is_step = self._objective, num_items_in_batch is not None
        counts = objective.counts
        if not is_step or counts is None:
            # Called on its own, outside a training step: the batch is the global batch
            counts = Counts(*objective.count([inputs]).to(inputs["labels"].device))
        has_image = inputs.pop("has_image")
        both_views = _BothViews(self, model)
        task_loss = super().compute_loss(both_views, inputs, num_items_in_batch=counts.tokens)
        output = both_views.output

        # As SFTTrainer scales its loss: DDP averages the gradients of the ranks, but the counts are those of all ranks
        ranks = self.accelerator.num_processes // self.get_tp_size() if self.args.average_tokens_across_devices else 1
        terms = [ranks * term.to(task_loss.device) for term in objective.terms(output, has_image, counts)]
        loss = objective.total(task_loss, terms, self.args.lambda_scale(self.state.global_step, self.state.max_steps))
        if not torch.isfinite(loss):
            per_row = output.feature_distance + output.log_probs.sum(1)
            raise non_finite_error(self, inputs, objective.parts(task_loss, terms), per_row)
        if is_step:
            objective.keep(task_loss, terms)
        return (loss, output) if return_outputs else loss

    def _log_probs_of_rows(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """Each row's log-probability, from another forward; `None` where other processes would have to take part."""
        if self.accelerator.num_processes > 1:
            return None
        with torch.no_grad():
            return self.model(**inputs, single_view=True).log_probs.sum(1)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.uses_cross_view_loss and self.model.training:
            means = self._objective.take_means(self.accelerator.gather)
            logs.update(means)
            if means and self.args.lambda_warmup_steps:
                logs["lambda_scale"] = self.args.lambda_scale(self.state.global_step - 1, self.state.max_steps)
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            screen = None if self._screen is None else self._screen.screen
            path = Path(str(self.args.output_dir)) / "README.md"
            section = defence_section(self.args, self.uses_cross_view_loss, screen, self.skipped_rows)
            path.write_text(with_section(path.read_text(encoding="utf-8"), section), encoding="utf-8")

    def audit(self, output_dir: str | Path | None = None, labels: Sequence[bool] | None = None) -> Audit:
        """
        What the screening found: every row ranked by suspicion, with the reason in words.

        The main process writes the files. Responses, tokens and losses of the rows are in its audit only; the audit of
        another process has only the verdict on each row.

        Args:
            output_dir (`str` or `Path`, *optional*):
                Folder to write `audit.parquet`, `audit.html` (one self-contained page) and `decisions.csv` (to fill in
                for the next training) to.
            labels (`Sequence[bool]`, *optional*):
                Whether each row of the training set is poisoned, where that is known: the page then shows how good the
                ranking is; see [`Audit.evaluate`].

        Returns:
            [`Audit`]

        Raises:
            `ValueError`: if screening is off, or the training has not reached it yet.
        """
        if self._screen is None:
            raise ValueError("`screening='off'`: no row was looked at. Set `screening='drop'` or 'report' and train.")
        audit = self._screen.audit()
        if output_dir is not None and self.is_world_process_zero():
            folder = Path(output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            audit.to_parquet(folder / "audit.parquet")
            audit.to_decisions(folder / "decisions.csv")
            # A stream has no rows to go back to
            given = self._given.train_dataset if self.skipped_rows.reasons else self.train_dataset
            dataset = given if has_length(self.train_dataset) else None
            audit.to_html(folder / "audit.html", dataset=dataset, labels=labels)
        return audit

    @cached_property
    def example_batch(self) -> dict[str, Any]:
        """The first row with a supervised token, collated: shown at the start, and the head is checked on it."""
        return collate_example(self)

    def _start_report(self) -> str:
        batch = self.example_batch
        if self.uses_cross_view_loss and isinstance(batch.get("labels"), torch.Tensor):
            batch = {**batch, "labels": self._cross_view_collator.ignore_image_tokens(batch["labels"])}
        return start_report(
            self.model,
            self.args,
            batch,
            self._tokenizer,
            uses_cross_view_loss=self.uses_cross_view_loss,
            is_encoder_decoder=self._is_encoder_decoder,
            feature_layer=None if self._head is None else self._head.feature_layer,
        )


class _BothViews:
    """Stands in for the model in SFTTrainer's `compute_loss`: runs both views, keeps the output for the terms."""

    output: Any  # a `CrossViewOutput` with all its fields

    def __init__(self, trainer: CrossViewDefenseTrainer, model: nn.Module) -> None:
        self.trainer, self.model = trainer, model

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(
            f"SFTTrainer.compute_loss of TRL {trl.__version__} asks the model for `{name}`, for which the two-view "
            "forward does not stand in. Install the TRL that this version of cvreg_trainer was made for."
        )

    def __call__(self, *, fused_lm_head: bool, **inputs: Any) -> CrossViewOutput:
        # Checked here, where SFTTrainer turns the errors of a forward into advice
        if not self.trainer._head_is_checked:
            self.trainer._head_is_checked = True
            check_head(self.trainer, self.model)
        self.output = self.model(**inputs, cross_view=True)
        return self.output
