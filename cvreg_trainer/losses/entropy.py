# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Entropy hinge (paper, equations 15 and 16)."""

import torch


def entropy_loss(
    entropy: torch.Tensor, label_mask: torch.Tensor, entropy_threshold: float, num_tokens: torch.Tensor | float
) -> torch.Tensor:
    """
    Shortfall of the original view's entropy below a threshold, summed over the valid tokens (paper, equation 16).

    Args:
        entropy (`torch.Tensor` of shape `(B, T)`):
            Entropy of the next-token distribution at each position, in nats.
        label_mask (`torch.Tensor` of shape `(B, T)`):
            The positions with a label. Boolean.
        entropy_threshold (`float`):
            The paper's H0, in nats.
        num_tokens (`torch.Tensor` or `float`):
            Number of valid tokens of the global batch.

    Returns:
        `torch.Tensor`: scalar.
    """
    return ((entropy_threshold - entropy).clamp(min=0) * label_mask).sum() / torch.as_tensor(num_tokens).clamp(min=1)
