# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Feature consistency of the two views (paper, equation 12)."""

import torch


def patch_loss(
    feature_distance: torch.Tensor, has_image: torch.Tensor, num_image_rows: torch.Tensor | float
) -> torch.Tensor:
    """
    Squared L2 distance of the two views' pooled features, summed over the rows with an image (paper, equation 12).

    Args:
        feature_distance (`torch.Tensor` of shape `(B,)`):
            Squared distance of each row's features in its two views.
        has_image (`torch.Tensor` of shape `(B,)`):
            Whether the row has an image, and with it a second view. Boolean.
        num_image_rows (`torch.Tensor` or `float`):
            Number of such rows in the global batch.

    Returns:
        `torch.Tensor`: scalar.
    """
    return (feature_distance * has_image).sum() / torch.as_tensor(num_image_rows).clamp(min=1)
