# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a training is about to do, printed once: a masking mistake should be seen before hours of training."""

from __future__ import annotations

import weakref
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import TrainerCallback


if TYPE_CHECKING:
    from .trainer import CrossViewDefenseTrainer

MAX_SHOWN_TOKENS = 400


class StartReportCallback(TrainerCallback):
    """
    Prints, when training begins: the modules that train, the defence's settings, the decoder layer that gives the
    features, and one decoded row with its supervised tokens marked.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer to report on.
    """

    def __init__(self, trainer: CrossViewDefenseTrainer) -> None:
        # Weakly, as the trainer holds this: it is freed when its user lets go of it, not when garbage is collected
        self.trainer: Any = weakref.proxy(trainer)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            # Not `print`: a progress bar may already stand on the line
            tqdm.write(start_report(self.trainer))


def start_report(trainer: CrossViewDefenseTrainer) -> str:
    """The text that [`StartReportCallback`] prints."""
    args, head, batch = trainer.args, trainer._head, trainer.example_batch
    lines = [("training", _count_parameters(trainer.model))]
    lines += [("", line) for line in _trainable_modules(trainer.model)]
    if trainer.is_defended:
        weights = f"lambda_patch {args.lambda_patch:g}, lambda_discrepancy {args.lambda_discrepancy:g}, "
        lines.append(("defence", f"{weights}lambda_entropy {args.lambda_entropy:g} (H0 {args.entropy_threshold:g})"))
        if head is not None:
            lines.append(("features", f"output of {head.feature_layer}, {args.feature_pooling} over the row"))
    elif not args.is_screened:
        why = "the data has no images" if args.is_defended else "the three lambdas are 0 and screening is off"
        lines.append(("defence", f"none: {why}, so this trains as SFTTrainer does"))
    if args.is_screened:
        length = "the first twelfth" if args.screening_epochs is None else f"{args.screening_epochs:g} epochs"
        lines.append(("screening", f"{args.screening}: suspicious rows are left out after a warm-up of {length}"))
    if {"labels", "input_ids"} <= set(batch):
        labels = batch["labels"][0]
        if trainer.is_defended:
            labels = trainer._cross_view_collator.ignore_image_tokens(labels)
        lines += [("one row", "supervised tokens stand between >> and <<")]
        shown = _show_row({**batch, "labels": labels[None]}, trainer._tokenizer, trainer._is_encoder_decoder)
        lines += [("", line) for line in shown]
    return "\n".join(f"{name:>10}  {text}".rstrip() for name, text in lines)


def _count_parameters(model: nn.Module) -> str:
    total = sum(_size(p) for p in model.parameters())
    trainable = sum(_size(p) for p in model.parameters() if p.requires_grad)
    return f"{trainable:,} of {total:,} parameters ({trainable / max(total, 1):.2%})"


def _size(parameter: torch.nn.Parameter) -> int:
    # ZeRO-3 keeps empty parameters and their size beside them
    return getattr(parameter, "ds_numel", parameter.numel())


def _trainable_modules(model: nn.Module) -> list[str]:
    """One line for each part of the model, as deep as it takes to tell vision tower, projector and decoder apart."""

    def part(name: str) -> str:
        return ".".join(name.removeprefix("base_model.model.").split(".")[:2])

    parts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        counts = parts.setdefault(part(name).removesuffix(".weight").removesuffix(".bias"), [0, 0])
        counts[0] += _size(parameter) if parameter.requires_grad else 0
        counts[1] += _size(parameter)
    return [f"{name}: {f'{trains:,} of {total:,}' if trains else 'frozen'}" for name, (trains, total) in parts.items()]


def _show_row(batch: dict[str, Any], tokenizer: Any, is_encoder_decoder: bool) -> list[str]:
    labels = batch["labels"][0].tolist()
    if is_encoder_decoder:
        shown = [label for label in labels if label != -100]
        source = _decode(tokenizer, _real_ids(batch))
        return [source, f">>{tokenizer.decode(shown)}<<"]
    ids = batch["input_ids"][0].tolist()
    mask = batch["attention_mask"][0].tolist() if "attention_mask" in batch else [1] * len(ids)
    # Logits predict the next token: a label counts at its own position, the first one never does
    tokens = [
        (token, label != -100 and position > 0)
        for position, (token, label, real) in enumerate(zip(ids, labels, mask, strict=True))
        if real
    ]
    text = ""
    for supervised, group in groupby(tokens[:MAX_SHOWN_TOKENS], key=lambda pair: pair[1]):
        part = _decode(tokenizer, [token for token, _ in group])
        text += f" >>{part}<< " if supervised else part
    if len(tokens) > MAX_SHOWN_TOKENS:
        text += f" ... ({len(tokens) - MAX_SHOWN_TOKENS} more tokens)"
    if not any(supervised for _, supervised in tokens):
        text += "  (no token of this row is supervised)"
    return text.strip().splitlines()


def _real_ids(batch: dict[str, Any]) -> list[int]:
    ids = batch["input_ids"][0]
    return ids[batch["attention_mask"][0].bool()].tolist() if "attention_mask" in batch else ids.tolist()


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """Decoded text, with runs of one token (image placeholders, mostly) as `token x576`."""
    text, run = "", []
    for token, group in groupby(ids):
        length = len(list(group))
        if length < 4:
            run += [token] * length
        else:
            text += f"{tokenizer.decode(run)} {tokenizer.decode([token])} x{length} "
            run = []
    return text + tokenizer.decode(run)
