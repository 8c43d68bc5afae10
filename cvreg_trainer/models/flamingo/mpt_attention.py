# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The attention of MPT-1B, which transformers' MPT lacks: layer norm on queries and keys.

Notable: the norm runs over the full width, before the split into heads, and has no bias (`attn_config["qk_ln"]`).
"""

from typing import Any

import torch
from torch import nn
from transformers import MptConfig, MptForCausalLM
from transformers.models.mpt.modeling_mpt import MptAttention


class MptAttentionWithNorm(MptAttention):
    """Multi-head attention with ALiBi and layer norm on queries and keys; arguments as [`MptAttention`]'s."""

    def __init__(self, config: MptConfig, layer_idx: int | None = None) -> None:
        super().__init__(config, layer_idx)
        self.q_ln = nn.LayerNorm(self.hidden_size, eps=config.layer_norm_epsilon, bias=False)
        self.k_ln = nn.LayerNorm(self.hidden_size, eps=config.layer_norm_epsilon, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor,
        cache: Any = None,
        attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the attention's output (B, T, D) and its weights (B, heads, T, keys)."""
        mixed = self.Wqkv(hidden_states)
        if self.clip_qkv:
            mixed = mixed.clamp(min=-self.clip_qkv, max=self.clip_qkv)
        query, key, value = mixed.chunk(3, dim=2)
        states = (self.q_ln(query), self.k_ln(key), value)
        query, key, value = (x.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2) for x in states)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)

        # The bias of the last key is 0 and that of every key is relative to it: softmax sees only differences
        scores = query @ key.transpose(-1, -2) * self.softmax_scale + position_bias[..., -key.shape[2] :]
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask, torch.finfo(query.dtype).min)
        precise = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(dim=-1, dtype=precise).to(value.dtype)
        weights = nn.functional.dropout(weights, p=self.attn_dropout_p, training=self.training)
        return self.out_proj((weights @ value).transpose(1, 2).flatten(2)), weights


def add_query_key_norm(model: MptForCausalLM) -> None:
    """Give the blocks of an MPT that was just built the attention with layer norm on queries and keys."""
    for index, block in enumerate(model.transformer.blocks):
        block.attn = MptAttentionWithNorm(model.config, index)
