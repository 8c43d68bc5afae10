# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Before the first defended step: does the cross-view head reproduce the model's own loss?"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def check_cross_view_head(model: nn.Module, inputs: dict[str, Any], *, mixed_precision: bool = False) -> None:
    """
    Compare the loss of a small batch through the cross-view head with the model's own, in evaluation mode.

    Model families differ in undocumented ways (logits longer than the labels, factors between head and loss), and a
    mismatch would silently train something other than the task.

    Args:
        model (`torch.nn.Module`):
            Model with a cross-view head, wrapped for distributed training or not; it is left in training mode.
        inputs (`dict[str, Any]`):
            A batch with `labels`, some of them valid.
        mixed_precision (`bool`, *optional*, defaults to `False`):
            Whether the model's forward has been wrapped to compute in half precision, which nothing else reveals.

    Raises:
        `ValueError`: if the two losses differ, with both numbers.
    """
    model.eval()
    base = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    labels = inputs["labels"]
    # Image tokens can have ids outside the head's vocabulary (Mllama), which the model's own loss does not accept
    vocabulary = getattr(base.get_output_embeddings(), "out_features", int(labels.max()) + 1)
    inputs = {**inputs, "labels": labels.masked_fill(labels >= vocabulary, -100)}
    try:
        own = _own_loss(model, inputs)
        output = model(**inputs, cross_view=True)
    finally:
        model.train()
    ours = float(-output.log_probs.sum() / output.label_mask.sum())
    # Not by the loss's dtype: models compute it in float32 whatever their own dtype
    is_exact = base.dtype == torch.float32 and not mixed_precision and not torch.is_autocast_enabled(own.device.type)
    if abs(ours - float(own)) > (1e-3 if is_exact else 5e-2) * max(1.0, abs(float(own))):
        raise ValueError(
            f"The two-view head does not reproduce the loss of {type(base).__name__}: {ours:.4f} instead of "
            f"{float(own):.4f} nats, the model's own, on one row. Its forward does something between the head and the "
            "loss that is not known here; set `lambda_patch`, `lambda_discrepancy` and `lambda_entropy` to 0 to train "
            "it without the defence, and please report it."
        )


def _own_loss(model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    try:
        loss = model(**inputs).loss
        if loss is not None:
            return loss
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        # IDEFICS counts the additional words of its head in its logits, but not in its loss
        pass
    labels = inputs["labels"]
    logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits[:, -labels.shape[1] :]
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
