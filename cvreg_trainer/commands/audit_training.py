# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The training whose first part `cvreg audit` runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared import load_model


if TYPE_CHECKING:
    from datasets import Dataset

BUILT_IN = "built-in"


def learning_rate(options: argparse.Namespace) -> float:
    """`--learning_rate`, or what suits the model."""
    if options.learning_rate is not None:
        return options.learning_rate
    if options.model == BUILT_IN:
        return 1e-2 if options.lora_rank else 2e-3
    return 2e-4 if options.lora_rank else 2e-5


def training_arguments(options: argparse.Namespace, folder: str) -> Any:
    """The training's configuration; `folder` stays as good as empty."""
    import torch

    from ..config import CrossViewDefenseConfig

    has_accelerator = torch.accelerator.is_available()
    return CrossViewDefenseConfig(
        folder,
        learning_rate=learning_rate(options),
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        num_train_epochs=options.num_train_epochs,
        per_device_train_batch_size=options.per_device_train_batch_size,
        per_device_eval_batch_size=options.per_device_train_batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        screening_epochs=options.screening_epochs,
        screening_rows=options.screening_rows,
        on_bad_row=options.on_bad_row,
        dataloader_num_workers=options.dataloader_num_workers,
        seed=options.seed,
        use_cpu=not has_accelerator,
        bf16=has_accelerator,
        # Memory is what accelerators are short of
        activation_checkpointing=has_accelerator,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
    )


def make_trainer(options: argparse.Namespace, config: Any, dataset: Dataset) -> Any:
    """The model of `--model`, with adapters or without, in a [`CrossViewDefenseTrainer`]."""
    from transformers import ProgressCallback

    from ..start_report import StartReportCallback
    from ..trainer import CrossViewDefenseTrainer

    model, processor = _load_model(options)
    adapters = None
    if options.lora_rank:
        adapters = _adapters(options.lora_rank, model)
    else:
        tower = model.get_encoder(modality="image")
        if tower is not model:
            tower.requires_grad_(False)
    trainer = CrossViewDefenseTrainer(
        model=model, args=config, train_dataset=dataset, processing_class=processor, peft_config=adapters
    )
    # An audit stops after the warm-up and has its own progress bar and report
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(StartReportCallback)
    return trainer


def _load_model(options: argparse.Namespace) -> tuple[Any, Any]:
    import torch

    from ..lab import load_base_model

    if options.model == BUILT_IN:
        return load_base_model()
    if (Path(options.model) / "adapter_config.json").is_file():
        raise ValueError(f"--model {options.model} is an adapter; give the base model that it belongs to")
    dtype = torch.bfloat16 if torch.accelerator.is_available() else torch.float32
    # The trainer moves it to its device
    return load_model(argparse.Namespace(**{**vars(options), "dtype": dtype}), "cpu")


def _adapters(rank: int, model: Any) -> Any:
    """LoRA on the linear layers of the decoder, and nothing of the vision tower."""
    from peft import LoraConfig
    from torch import nn

    from ..head.decoder_layers import find_decoder_layer

    stack = find_decoder_layer(model, 0).removesuffix("0")
    names = [name for name, part in model.named_modules() if name.startswith(stack) and isinstance(part, nn.Linear)]
    if not names:
        raise ValueError(f"--lora_rank {rank}: {type(model).__name__} has no linear layers to adapt; set it to 0")
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, task_type="CAUSAL_LM")
