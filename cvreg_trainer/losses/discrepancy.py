# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Cross-view output discrepancy (paper, equations 13 and 14)."""

import torch


def discrepancy_loss(
    similarity: torch.Tensor,
    label_mask: torch.Tensor,
    has_image: torch.Tensor,
    num_image_tokens: torch.Tensor | float,
) -> torch.Tensor:
    """
    Cosine similarity of the two views' next-token distributions, summed over the valid tokens of rows with an image
    (paper, equation 14). Minimised: a backdoored response is suspiciously invariant.

    Args:
        similarity (`torch.Tensor` of shape `(B, T)`):
            Cosine similarity of the two distributions at each position.
        label_mask (`torch.Tensor` of shape `(B, T)`):
            The positions with a label (paper, equation 13). Boolean.
        has_image (`torch.Tensor` of shape `(B,)`):
            Whether the row has an image, and with it a second view. Boolean.
        num_image_tokens (`torch.Tensor` or `float`):
            Number of valid tokens in the rows with an image of the global batch.

    Returns:
        `torch.Tensor`: scalar.
    """
    return (similarity * (label_mask & has_image[:, None])).sum() / torch.as_tensor(num_image_tokens).clamp(min=1)
