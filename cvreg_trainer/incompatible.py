# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What cannot work together with a second view or with screening, refused before a training starts."""

from __future__ import annotations

from typing import Any, NamedTuple

from peft import PeftModel

from .config import CrossViewDefenseConfig


class _Defence(NamedTuple):
    """One of the two defences, in the words of the errors."""

    row_by_row: str
    whole_sequences: str
    virtual_tokens: str
    remedy: str


CROSS_VIEW_LOSS = _Defence(
    row_by_row="views are compared row by row",
    whole_sequences="the views' features are pooled over whole sequences",
    virtual_tokens="for one view only",
    remedy="or set `lambda_patch`, `lambda_discrepancy` and `lambda_entropy` to 0 to train without the defence.",
)
SCREENING = _Defence(
    row_by_row="screening leaves out row by row",
    whole_sequences="screening looks at whole responses",
    virtual_tokens="with which the model before its first step is not the base model that screening compares with",
    remedy="or set `screening='off'`.",
)


def refuse_incompatible_options(
    args: CrossViewDefenseConfig, model: Any, trainer_arguments: dict[str, Any], holds_images: bool
) -> None:
    """
    Raise a `ValueError` for options that a defended training cannot honour, naming the option to change.

    Args:
        args ([`CrossViewDefenseConfig`]):
            Configuration.
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Model to train.
        trainer_arguments (`dict[str, Any]`):
            Further arguments of the trainer.
        holds_images (`bool`):
            Whether there are images; the cross-view loss is about nothing else.
    """
    peft_config = _peft_config(model, trainer_arguments)
    if args.uses_cross_view_loss and holds_images:
        _refuse_what_needs_the_model_s_own_head(args, trainer_arguments)
        _refuse_what_mixes_rows(args, peft_config, CROSS_VIEW_LOSS)
    if args.is_screened:
        _refuse_what_mixes_rows(args, peft_config, SCREENING)


def _refuse_what_needs_the_model_s_own_head(args: CrossViewDefenseConfig, trainer_arguments: dict[str, Any]) -> None:
    remedy = CROSS_VIEW_LOSS.remedy
    if args.label_smoothing_factor > 0:
        raise ValueError(
            f"`label_smoothing_factor={args.label_smoothing_factor}` needs the full logits, which the two-view head "
            f"never builds. Set `label_smoothing_factor=0`, {remedy}"
        )
    if trainer_arguments.get("compute_loss_func") is not None:
        raise ValueError(
            "`compute_loss_func` needs the full logits, which the two-view head never builds. Remove it (subclass and "
            f"override `compute_loss` instead), {remedy}"
        )
    liger = args.liger_kernel_config if isinstance(args.liger_kernel_config, dict) else {}
    if args.use_liger_kernel and liger.get("fused_linear_cross_entropy"):
        raise ValueError(
            "Liger's fused loss replaces the model's forward, which the two-view head needs. Set "
            f'`liger_kernel_config={{"fused_linear_cross_entropy": False}}`, {remedy}'
        )


def _refuse_what_mixes_rows(args: CrossViewDefenseConfig, peft_config: Any, defence: _Defence) -> None:
    for option in ("packing", "padding_free"):
        if getattr(args, option):
            raise ValueError(
                f"`{option}=True` puts several rows into one sequence, but {defence.row_by_row}. "
                f"Set `{option}=False`, {defence.remedy}"
            )
    parallelism = args.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise ValueError(
            f"`parallelism_config` cuts sequences across devices, but {defence.whole_sequences}. Set its `cp_size` "
            f"and `sp_size` to 1, {defence.remedy}"
        )
    if getattr(peft_config, "is_prompt_learning", False):
        raise ValueError(
            f"`peft_config={type(peft_config).__name__}` adds virtual tokens, {defence.virtual_tokens}. Use an "
            f"adapter such as `LoraConfig`, {defence.remedy}"
        )


def _peft_config(model: Any, trainer_arguments: dict[str, Any]) -> Any:
    peft_config = trainer_arguments.get("peft_config")
    # A model that is still the name of one has no adapter yet
    if peft_config is None and isinstance(model, PeftModel):
        peft_config = model.peft_config[model.active_adapter]
    return peft_config
