# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What cannot work together with a second view or with screening, refused before a training starts."""

from __future__ import annotations

from typing import Any

from peft import PeftModel

from .config import CrossViewDefenseConfig


REMEDY = "or set `lambda_patch`, `lambda_discrepancy` and `lambda_entropy` to 0 to train without the defence."
SCREENING_REMEDY = "or set `screening='off'`."


def refuse_incompatible_options(args: CrossViewDefenseConfig, model: Any, trainer_arguments: dict[str, Any]) -> None:
    """
    Raise a `ValueError` for options that a defended training cannot honour, naming the option to change.

    Args:
        args ([`CrossViewDefenseConfig`]):
            Configuration with a lambda above 0, for data with images.
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Model to train.
        trainer_arguments (`dict[str, Any]`):
            Further arguments of the trainer.
    """
    if args.label_smoothing_factor > 0:
        raise ValueError(
            f"`label_smoothing_factor={args.label_smoothing_factor}` needs the full logits, which the two-view head "
            f"never builds. Set `label_smoothing_factor=0`, {REMEDY}"
        )
    if trainer_arguments.get("compute_loss_func") is not None:
        raise ValueError(
            "`compute_loss_func` needs the full logits, which the two-view head never builds. Remove it (subclass and "
            f"override `compute_loss` instead), {REMEDY}"
        )
    for option in ("packing", "padding_free"):
        if getattr(args, option):
            raise ValueError(
                f"`{option}=True` puts several rows into one sequence, but views are compared row by row. "
                f"Set `{option}=False`, {REMEDY}"
            )
    liger = args.liger_kernel_config if isinstance(args.liger_kernel_config, dict) else {}
    if args.use_liger_kernel and liger.get("fused_linear_cross_entropy"):
        raise ValueError(
            "Liger's fused loss replaces the model's forward, which the two-view head needs. Set "
            f'`liger_kernel_config={{"fused_linear_cross_entropy": False}}`, {REMEDY}'
        )
    parallelism = args.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise ValueError(
            "`parallelism_config` cuts sequences across devices, but the views' features are pooled over whole "
            f"sequences. Set its `cp_size` and `sp_size` to 1, {REMEDY}"
        )
    peft_config = _peft_config(model, trainer_arguments)
    if getattr(peft_config, "is_prompt_learning", False):
        raise ValueError(
            f"`peft_config={type(peft_config).__name__}` adds virtual tokens for one view only. Use an adapter such "
            f"as `LoraConfig`, {REMEDY}"
        )


def refuse_options_without_rows(args: CrossViewDefenseConfig, model: Any, trainer_arguments: dict[str, Any]) -> None:
    """
    Raise a `ValueError` for options under which the rows of a batch cannot be told apart, which screening has to.

    Args:
        args ([`CrossViewDefenseConfig`]):
            Configuration with screening.
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Model to train.
        trainer_arguments (`dict[str, Any]`):
            Further arguments of the trainer.
    """
    for option in ("packing", "padding_free"):
        if getattr(args, option):
            raise ValueError(
                f"`{option}=True` puts several rows into one sequence, but screening leaves out row by row. "
                f"Set `{option}=False`, {SCREENING_REMEDY}"
            )
    parallelism = args.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise ValueError(
            "`parallelism_config` cuts sequences across devices, but screening looks at whole responses. Set its "
            f"`cp_size` and `sp_size` to 1, {SCREENING_REMEDY}"
        )
    peft_config = _peft_config(model, trainer_arguments)
    if getattr(peft_config, "is_prompt_learning", False):
        raise ValueError(
            f"`peft_config={type(peft_config).__name__}` adds virtual tokens, with which the model before its first "
            "step is not the base model that screening compares with. Use an adapter such as `LoraConfig`, "
            f"{SCREENING_REMEDY}"
        )


def _peft_config(model: Any, trainer_arguments: dict[str, Any]) -> Any:
    peft_config = trainer_arguments.get("peft_config")
    # A model that is still the name of one has no adapter yet
    if peft_config is None and isinstance(model, PeftModel):
        peft_config = model.peft_config[model.active_adapter]
    return peft_config
