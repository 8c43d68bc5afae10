# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a training is about to do, printed once: a masking mistake should be seen before hours of training."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import TrainerCallback

from .config import CrossViewDefenseConfig


MAX_SHOWN_TOKENS = 400


class StartReportCallback(TrainerCallback):
    """
    Prints, when training begins, what [`start_report`] says.

    Args:
        report (`Callable[[], str]`):
            Method that makes the text when it is time to.
    """

    def __init__(self, report: Callable[[], str]) -> None:
        # Weakly, as the trainer holds this: it is freed when its user lets go of it, not when garbage is collected
        self.report = weakref.WeakMethod(report)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            # Not `print`: a progress bar may already stand on the line
            report = self.report()
            assert report is not None
            tqdm.write(report())


def start_report(
    model: nn.Module,
    args: CrossViewDefenseConfig,
    batch: Mapping[str, Any],
    tokenizer: Any,
    *,
    uses_cross_view_loss: bool,
    is_encoder_decoder: bool,
    feature_layer: str | None = None,
) -> str:
    """
    What a training is about to do: the modules that train, the defence's settings, the decoder layer that gives the
    features, and one decoded row with its supervised tokens marked.

    Args:
        model (`torch.nn.Module`):
            Model to train, with its adapters.
        args ([`CrossViewDefenseConfig`]):
            Configuration.
        batch (`Mapping[str, Any]`):
            One collated row, with the labels that count.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What decodes it.
        uses_cross_view_loss (`bool`):
            Whether the paper's terms are part of the loss: a lambda is above 0 and there are images.
        is_encoder_decoder (`bool`):
            Whether the labels are the decoder's, apart from the ids.
        feature_layer (`str`, *optional*):
            Name of the layer that gives the features.

    Returns:
        `str`: some lines of text.
    """
    lines = [("training", _count_parameters(model))]
    lines += [("", line) for line in _trainable_modules(model)]
    if uses_cross_view_loss:
        weights = f"lambda_patch {args.lambda_patch:g}, lambda_discrepancy {args.lambda_discrepancy:g}, "
        lines.append(("defence", f"{weights}lambda_entropy {args.lambda_entropy:g} (H0 {args.entropy_threshold:g})"))
        if not args.is_screened:
            lines.append(("", "these terms prevented few attacks by themselves; screening='drop' leaves rows out"))
        lines.append(("features", f"output of {feature_layer}, {args.feature_pooling} over the row"))
    elif not args.is_screened:
        has_lambda = args.uses_cross_view_loss
        why = "the data has no images" if has_lambda else "the three lambdas are 0 and screening is off"
        lines.append(("defence", f"none: {why}, so this trains as SFTTrainer does"))
    if args.is_screened:
        length = (
            "the first twelfth, or 60 steps," if args.screening_epochs is None else f"{args.screening_epochs:g} epochs"
        )
        done = "left out" if args.drops_rows else "listed, and trained on all the same,"
        lines.append(("screening", f"{args.screening}: suspicious rows are {done} after a warm-up of {length}"))
        lines.append(("", "it can flag honest rows and miss poisoned ones: look at the audit"))
    if {"labels", "input_ids"} <= set(batch):
        lines += [("one row", "supervised tokens stand between >> and <<")]
        lines += [("", line) for line in _show_row(batch, tokenizer, is_encoder_decoder)]
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


def _show_row(batch: Mapping[str, Any], tokenizer: Any, is_encoder_decoder: bool) -> list[str]:
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


def _real_ids(batch: Mapping[str, Any]) -> list[int]:
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
