# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The fused two-view head in PyTorch.

What it computes, for logits `z = transform(hidden @ weight.T + bias)` and `z~` likewise from the perturbed view:

```python
log_probs = z.log_softmax(-1).gather(-1, targets)
entropy = -(z.softmax(-1) * z.log_softmax(-1)).sum(-1)
similarity = torch.cosine_similarity(z.softmax(-1), z~.softmax(-1))
```

How: the vocabulary is walked in tiles that fold into online log-sum-exps, so a tile is the largest thing in memory.
The cosine comes from `log cos = lse(z + z~) - (lse(2 z) + lse(2 z~)) / 2`: the normalisers of both softmaxes cancel,
and no probability underflows. The backward pass computes the tiles again and accumulates the weight gradient in
float32: a sum of thousands of tile products rounded to bfloat16 one by one is biased.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


# A tile of 2,048 tokens by 8,192 words is 64 MiB in float32; about six of them are alive at a time.
TOKEN_TILE = 2048
VOCAB_TILE = 8192


class HeadStatistics(NamedTuple):
    """
    Per-token statistics of the next-token distributions, each of shape `(N,)`.

    Args:
        log_probs (`torch.Tensor`):
            Log-probability of the target in the original view, in nats.
        entropy (`torch.Tensor`):
            Entropy of the original view's distribution, in nats.
        similarity (`torch.Tensor` or `None`):
            Cosine similarity of the two views' distributions, in [0, 1]. `None` without a perturbed view.
        top1 (`torch.Tensor`):
            The most likely token of the original view. int64, no gradient.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor
    similarity: torch.Tensor | None
    top1: torch.Tensor


def cross_view_statistics(
    hidden: torch.Tensor,
    perturbed_hidden: torch.Tensor | None,
    weight: torch.Tensor,
    targets: torch.Tensor,
    bias: torch.Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> HeadStatistics:
    """
    Log-probabilities, entropies and cross-view similarities of a linear head, in tiles (paper, equations 11, 14, 15).

    Statistics are float32 (float64 for float64 inputs) whatever the inputs' dtype; the projection runs in the autocast
    dtype where autocast is on.

    Args:
        hidden (`torch.Tensor` of shape `(N, D)`):
            Hidden states of the original view that predict the targets.
        perturbed_hidden (`torch.Tensor` of shape `(N, D)` or `None`):
            The same positions of the perturbed view, or `None` to leave the similarity out.
        weight (`torch.Tensor` of shape `(V, D)`):
            Weight of the head.
        targets (`torch.Tensor` of shape `(N,)`):
            Token ids in `[0, V)`.
        bias (`torch.Tensor` of shape `(V,)`, *optional*):
            Bias of the head.
        logit_scale (`float`, *optional*, defaults to `1.0`):
            Factor by which the model multiplies its head's output.
        softcap (`float`, *optional*):
            Bound `c` of the soft capping `c * tanh(z / c)`, after the scale.

    Returns:
        [`HeadStatistics`], differentiable with respect to the hidden states, the weight and the bias.
    """
    log_probs, entropy, similarity, top1 = _CrossViewFunction.apply(
        hidden, perturbed_hidden, weight, bias, targets, logit_scale, softcap
    )
    return HeadStatistics(log_probs, entropy, similarity, top1)


class _Fold:
    """Online statistics of one view over vocabulary tiles: max `m`, `sum e`, `sum e (z - m)` and `sum e^2`, where
    `e = exp(z - m)`. The maximum contributes 1 to both sums, so neither log underflows."""

    def __init__(self, tile: torch.Tensor) -> None:
        self.max = tile.amax(-1)
        centred = tile - self.max.unsqueeze(-1)
        exp = centred.exp()
        self.sum, self.weighted, self.squares = exp.sum(-1), (exp * centred).sum(-1), (exp * exp).sum(-1)

    def merge(self, other: _Fold) -> None:
        new_max = torch.maximum(self.max, other.max)
        shift, other_shift = self.max - new_max, other.max - new_max
        scale, other_scale = shift.exp(), other_shift.exp()
        self.weighted = scale * (self.weighted + shift * self.sum)
        self.weighted += other_scale * (other.weighted + other_shift * other.sum)
        self.sum = scale * self.sum + other_scale * other.sum
        self.squares = scale.square() * self.squares + other_scale.square() * other.squares
        self.max = new_max

    def lse(self) -> torch.Tensor:
        return self.max + self.sum.log()

    def lse_of_double(self) -> torch.Tensor:
        return 2 * self.max + self.squares.log()

    def entropy(self) -> torch.Tensor:
        # From the centred logits: from the logits themselves, two numbers of their size would cancel
        return self.sum.log() - self.weighted / self.sum


class _CrossViewFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,  # (N, D)
        perturbed_hidden: torch.Tensor | None,  # (N, D)
        weight: torch.Tensor,  # (V, D)
        bias: torch.Tensor | None,  # (V,)
        targets: torch.Tensor,  # (N,)
        logit_scale: float,
        softcap: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
        # A term without a weight sends no gradient: leave it None instead of working through zeros
        ctx.set_materialize_grads(False)
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        ctx.projection = _Projection(
            logit_scale, softcap, torch.get_autocast_dtype(device) if autocast else hidden.dtype
        )
        # One column per token: log_probs, top-1 index, then what the backward pass needs
        columns = hidden.new_zeros((7, len(hidden)), dtype=_statistics_dtype(hidden))
        with torch.autocast(device, enabled=False):
            for rows in _slices(len(hidden), TOKEN_TILE):
                views = hidden[rows], None if perturbed_hidden is None else perturbed_hidden[rows]
                _fold_tokens(ctx.projection, views, weight, bias, targets[rows], columns[:, rows])
        log_probs, top1, entropy, *_ = columns
        similarity = _similarity(columns) if perturbed_hidden is not None else None
        ctx.save_for_backward(hidden, perturbed_hidden, weight, bias, targets, columns)
        top1 = top1.long()
        ctx.mark_non_differentiable(top1)
        return log_probs.clone(), entropy.clone(), similarity, top1

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        hidden, perturbed_hidden, weight, bias, targets, columns = ctx.saved_tensors
        projection, dtype = ctx.projection, columns.dtype
        sums = [
            torch.zeros_like(tensor, dtype=dtype) if needed and tensor is not None else None
            for tensor, needed in zip((hidden, perturbed_hidden, weight, bias), ctx.needs_input_grad, strict=False)
        ]
        *grad_views, grad_weight, grad_bias = sums
        for rows in _slices(len(hidden), TOKEN_TILE):
            token_grads = [None if grad is None else grad[rows].to(dtype)[:, None] for grad in grads[:3]]
            views = hidden[rows], None if perturbed_hidden is None else perturbed_hidden[rows]
            for words in _slices(len(weight), VOCAB_TILE):
                tile_weight, tile_bias = weight[words], None if bias is None else bias[words]
                logits = [None if v is None else projection.logits(v, tile_weight, tile_bias) for v in views]
                local_targets = targets[rows] - words.start
                grad_logits = _grad_logits(logits, local_targets, columns[:, rows, None], token_grads)
                for states, z, grad, grad_states in zip(views, logits, grad_logits, grad_views, strict=True):
                    if grad is None:
                        continue
                    grad = projection.grad_output(grad, z)
                    if grad_states is not None:
                        grad_states[rows] += projection.matmul(grad, tile_weight)
                    if grad_weight is not None:
                        grad_weight[words] += projection.matmul(grad.t(), states)
                    if grad_bias is not None:
                        grad_bias[words] += grad.sum(0)
        inputs = (hidden, perturbed_hidden, weight, bias)
        return *(None if s is None else s.to(i.dtype) for s, i in zip(sums, inputs, strict=True)), None, None, None


# Rows of `columns`
_LOG_PROBS, _TOP1, _ENTROPY, _LSE, _LSE_SUM, _LSE_DOUBLE, _LSE_DOUBLE_PERTURBED = range(7)


class _Projection(NamedTuple):
    """Maps hidden states to logits, and gradients back, for one tile of the vocabulary."""

    scale: float
    softcap: float | None
    dtype: torch.dtype

    def logits(self, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        output = self.matmul(states, weight.t())
        if bias is not None:
            output += bias.to(self.dtype)
        z = output * self.scale
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)

    def grad_output(self, grad: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        if self.softcap is not None:
            grad = grad * (1 - (z / self.softcap).square())
        return grad * self.scale

    def matmul(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """The product of two factors cast to the compute dtype; the result is not rounded to it."""
        left, right = left.to(self.dtype), right.to(self.dtype)
        if self.dtype in (torch.float32, torch.float64):
            return left @ right
        if left.is_cuda:
            return torch.mm(left, right, out_dtype=torch.float32)
        return left.float() @ right.float()


def _fold_tokens(
    projection: _Projection,
    views: tuple[torch.Tensor, torch.Tensor | None],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    columns: torch.Tensor,
) -> None:
    folds: list[_Fold] = []
    best = torch.full_like(columns[_TOP1], float("-inf"))
    for words in _slices(len(weight), VOCAB_TILE):
        tile_bias = None if bias is None else bias[words]
        z = projection.logits(views[0], weight[words], tile_bias)
        tiles = [z]
        if views[1] is not None:
            z_perturbed = projection.logits(views[1], weight[words], tile_bias)
            tiles += [z_perturbed, z + z_perturbed]
        tile_folds = [_Fold(tile) for tile in tiles]
        if folds:
            for fold, tile_fold in zip(folds, tile_folds, strict=True):
                fold.merge(tile_fold)
        else:
            folds = tile_folds
        local = targets - words.start
        inside = (local >= 0) & (local < z.shape[-1])
        target_z = z.gather(-1, local.clamp(0, z.shape[-1] - 1)[:, None])[:, 0]
        columns[_LOG_PROBS] = torch.where(inside, target_z, columns[_LOG_PROBS])
        tile_best, tile_top1 = z.max(-1)
        columns[_TOP1] = torch.where(tile_best > best, (tile_top1 + words.start).to(columns.dtype), columns[_TOP1])
        best = torch.maximum(best, tile_best)
    columns[_ENTROPY], columns[_LSE] = folds[0].entropy(), folds[0].lse()
    columns[_LOG_PROBS] -= columns[_LSE]
    if views[1] is not None:
        columns[_LSE_DOUBLE], columns[_LSE_DOUBLE_PERTURBED] = folds[0].lse_of_double(), folds[1].lse_of_double()
        columns[_LSE_SUM] = folds[2].lse()


def _similarity(columns: torch.Tensor) -> torch.Tensor:
    log_cos = columns[_LSE_SUM] - (columns[_LSE_DOUBLE] + columns[_LSE_DOUBLE_PERTURBED]) / 2
    return log_cos.clamp(max=0).exp()


def _grad_logits(
    logits: list[Any],
    local_targets: torch.Tensor,
    columns: torch.Tensor,
    token_grads: list[torch.Tensor | None],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    z, z_perturbed = logits
    grad_log_probs, grad_entropy, grad_similarity = token_grads
    grad, grad_perturbed = torch.zeros_like(z), None
    log_p = z - columns[_LSE]
    if grad_log_probs is not None:
        # d log p_target / dz = onehot - p
        grad -= grad_log_probs * log_p.exp()
        inside = (local_targets >= 0) & (local_targets < z.shape[-1])
        index = local_targets.clamp(0, z.shape[-1] - 1)[:, None]
        grad.scatter_add_(-1, index, grad_log_probs * inside[:, None])
    if grad_entropy is not None:
        # dH / dz = -p (log p + H)
        grad -= grad_entropy * log_p.exp() * (log_p + columns[_ENTROPY])
    if grad_similarity is not None and z_perturbed is not None:
        # d cos / dz = cos (softmax(z + z~) - softmax(2 z)), and the same with z~
        both = (z + z_perturbed - columns[_LSE_SUM]).exp()
        factor = grad_similarity * _similarity(columns)
        grad += factor * (both - (2 * z - columns[_LSE_DOUBLE]).exp())
        grad_perturbed = factor * (both - (2 * z_perturbed - columns[_LSE_DOUBLE_PERTURBED]).exp())
    return grad, grad_perturbed


def _statistics_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
