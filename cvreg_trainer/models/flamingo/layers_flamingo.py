# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The two parts of Flamingo that are its own: the perceiver resampler and gated cross-attention.

Notable: the names of parameters are those of the published checkpoints, as far as OpenFlamingo and Otter agree.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_flamingo import FlamingoConfig


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


def _attend(
    query: torch.Tensor, key_value: torch.Tensor, num_heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:  # (..., T, heads * head_dim)
    states = (query, *key_value.chunk(2, dim=-1))
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(-3, -2) for x in states)
    output = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return output.transpose(-3, -2).flatten(-2)


class FlamingoPerceiverLayer(GradientCheckpointingLayer):
    """Latents attend to the features of an image and to themselves; then a feed-forward network."""

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.num_heads = config.num_cross_attention_heads
        inner = self.num_heads * config.cross_attention_head_dim
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.feed_forward = _feed_forward(width)

    def forward(self, latents: torch.Tensor, features: torch.Tensor) -> torch.Tensor:  # (N, L, D), (N, V, D)
        queries = self.norm_latents(latents)
        key_value = self.to_kv(torch.cat((self.norm_media(features), queries), dim=-2))
        latents = latents + self.to_out(_attend(self.to_q(queries), key_value, self.num_heads))
        return latents + self.feed_forward(latents)


class FlamingoPerceiverResampler(nn.Module):
    """Condenses the features of an image, or of all frames of a video, to a fixed number of latents."""

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.latents = nn.Parameter(torch.empty(config.num_latents, width))
        self.frame_embs = None if config.max_frames is None else nn.Parameter(torch.empty(config.max_frames, width))
        self.layers = nn.ModuleList(FlamingoPerceiverLayer(config) for _ in range(config.num_perceiver_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:  # (N, F, V, D) -> (N, L, D)
        num_frames = features.shape[1]
        if self.frame_embs is not None:
            if num_frames > len(self.frame_embs):
                raise ValueError(
                    f"`pixel_values` has {num_frames} frames, but the model knows only {len(self.frame_embs)} "
                    "(`max_frames`). Pass fewer frames of the video."
                )
            features = features + self.frame_embs[:num_frames, None]
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(latents, features.flatten(1, 2))
        return self.norm(latents)


class FlamingoMaskedCrossAttention(nn.Module):
    """Each token attends to the latents of the image that its `text_time` numbers; to none, and 0, where that is 0."""

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.num_heads = config.num_cross_attention_heads
        inner = self.num_heads * config.cross_attention_head_dim
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(config.vision_config.hidden_size, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: torch.Tensor, media: torch.Tensor, text_time: torch.Tensor) -> torch.Tensor:
        num_images, num_latents = media.shape[1:3]
        time = text_time.unsqueeze(-1)
        # Tokens before the first image see everything here, which keeps softmax finite, and lose it below
        visible = (time == torch.arange(1, num_images + 1, device=time.device)) | (time == 0)  # (B, T, n_images)
        mask = visible.repeat_interleave(num_latents, dim=-1).unsqueeze(1)
        output = _attend(self.to_q(self.norm(hidden)), self.to_kv(media.flatten(1, 2)), self.num_heads, mask)
        return self.to_out(output.masked_fill(time == 0, 0))


class FlamingoGatedCrossAttention(GradientCheckpointingLayer):
    """Cross-attention and a feed-forward network, each added through a tanh gate that starts closed."""

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__()
        self.attn = FlamingoMaskedCrossAttention(config)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward = _feed_forward(config.text_config.hidden_size)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: torch.Tensor, media: torch.Tensor, text_time: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.attn_gate.tanh() * self.attn(hidden, media, text_time)
        return hidden + self.ff_gate.tanh() * self.feed_forward(hidden)
