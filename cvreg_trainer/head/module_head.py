# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The two-view head for heads that are more than a weight: quantised, decoupled, or replaced by an adapter.

Such a head is called as the module it is, on the label-valid positions only and a slice of them at a time; each slice
is computed again in the backward pass, so the logits never exist in full here either.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .fused import HeadStatistics, _slices, _statistics_dtype


TOKEN_TILE = 256


def module_head_statistics(
    head: nn.Module,
    hidden: torch.Tensor,
    perturbed_hidden: torch.Tensor | None,
    targets: torch.Tensor,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> HeadStatistics:
    """
    [`cross_view_statistics`] for any module that maps hidden states `(N, D)` to logits `(N, V)`.

    Args:
        head (`torch.nn.Module`):
            The model's output embeddings.
        hidden, perturbed_hidden, targets, logit_scale, softcap:
            As in [`cross_view_statistics`].

    Returns:
        [`HeadStatistics`], differentiable with respect to the hidden states and all that trains inside the head.
    """

    def logits(states: torch.Tensor) -> torch.Tensor:
        z = head(states).to(_statistics_dtype(states)) * logit_scale
        return z if softcap is None else softcap * torch.tanh(z / softcap)

    # An empty batch still goes through the head once, so that its parameters get a (zero) gradient on every rank
    tiles = [
        checkpoint(
            _tile_statistics,
            logits,
            hidden[rows],
            None if perturbed_hidden is None else perturbed_hidden[rows],
            targets[rows],
            use_reentrant=False,
        )
        for rows in _slices(len(hidden), TOKEN_TILE) or [slice(0, 0)]
    ]
    log_probs, entropy, similarity, top1 = zip(*tiles, strict=True)
    return HeadStatistics(
        torch.cat(log_probs),
        torch.cat(entropy),
        torch.cat(similarity) if perturbed_hidden is not None else None,
        torch.cat(top1),
    )


def _tile_statistics(
    logits: Callable[[torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    perturbed_hidden: torch.Tensor | None,
    targets: torch.Tensor,
) -> HeadStatistics:
    z = logits(hidden)
    log_p = z.log_softmax(-1)
    log_probs = log_p.gather(-1, targets[:, None])[:, 0]
    similarity = None
    if perturbed_hidden is not None:
        z_perturbed = logits(perturbed_hidden)
        doubles = (2 * z).logsumexp(-1) + (2 * z_perturbed).logsumexp(-1)
        similarity = ((z + z_perturbed).logsumexp(-1) - doubles / 2).clamp(max=0).exp()
    entropy = -(log_p.exp() * log_p).sum(-1)
    return HeadStatistics(log_probs, entropy, similarity, z.argmax(-1))
