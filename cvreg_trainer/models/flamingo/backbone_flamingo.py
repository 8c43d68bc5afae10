# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Flamingo without a head: images in, the language model's hidden states out.

Notable:
- The language model is one of transformers', untouched. A gated block runs in a hook before its decoder layer, and the
  hook exists only during a forward: no media are left on layers, whatever raises, and copies of a model are free.
- A token attends to the latents of the last image before it. Which one that is, its `text_time`, comes from the ids of
  the whole text; generation with a cache hands it on.
- Without images one blank image is encoded and hidden from every token, so that the same modules run on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers import initialization as init
from transformers.utils.deprecation import deprecate_kwarg

from ...head.decoder_layers import find_decoder_layer
from .configuration_flamingo import FlamingoConfig
from .layers_flamingo import FlamingoGatedCrossAttention, FlamingoPerceiverResampler
from .mpt_attention import add_query_key_norm


class FlamingoPreTrainedModel(PreTrainedModel):
    """Initialisation and loading, as every model of transformers has them."""

    config: FlamingoConfig
    config_class = FlamingoConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["FlamingoPerceiverLayer", "FlamingoGatedCrossAttention"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # transformers renames old checkpoints of other models by `model.language_model.model`, which is a name of ours
    # too; what it keeps of that here would rename the weights when a loaded model is saved
    _weight_conversions = property(lambda self: [], lambda self, conversions: None, lambda self: None)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FlamingoPerceiverResampler):
            init.normal_(module.latents)
            if module.frame_embs is not None:
                init.normal_(module.frame_embs)
        elif isinstance(module, FlamingoGatedCrossAttention):
            init.zeros_(module.attn_gate)
            init.zeros_(module.ff_gate)


class FlamingoModel(FlamingoPreTrainedModel):
    """
    Vision tower, perceiver resampler, gated cross-attention and language model; returns the language model's last
    hidden states, without its head.
    """

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.perceiver = FlamingoPerceiverResampler(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        if config.text_config.model_type == "mpt" and config.text_config.attn_config.qk_ln:
            add_query_key_norm(self.language_model)
        self.layers_name = find_decoder_layer(self.language_model, 0).rpartition(".")[0]
        every = config.cross_attn_every_n_layers
        self.gated_cross_attention = nn.ModuleDict(
            {
                str(layer): FlamingoGatedCrossAttention(config)
                for layer in range(every - 1, config.text_config.num_hidden_layers, every)
            }
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Encode images or videos.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, n_images, frames, C, H, W)`):
                Normalised pixels; `frames` is 1 for images.

        Returns:
            `torch.Tensor` of shape `(B, n_images, num_latents, vision_width)`.

        Raises:
            `ValueError`: if the shape is another one, or if there are more frames than frame embeddings.
        """
        if pixel_values.ndim != 6:
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)}; Flamingo reads (batch, images, frames, "
                "channels, height, width), with 1 frame for images. `FlamingoProcessor` makes it so."
            )
        batch, num_images, num_frames = pixel_values.shape[:3]
        features = self.vision_tower(pixel_values.flatten(0, 2).to(self.vision_tower.dtype)).last_hidden_state[:, 1:]
        return self.perceiver(features.unflatten(0, (batch * num_images, num_frames))).unflatten(
            0, (batch, num_images)
        )

    def blank_image_features(self, tokens: torch.Tensor) -> torch.Tensor:
        """What stands in where `tokens` (B, T, ...) have no images, shape `(B, 1, num_latents, vision_width)`."""
        config = self.config.vision_config
        shape = (1, 1, 1, config.num_channels, config.image_size, config.image_size)
        return self.get_image_features(torch.zeros(shape, device=tokens.device)).expand(len(tokens), -1, -1, -1)

    def count_images(self, input_ids: torch.Tensor, num_images: int) -> torch.Tensor:
        """
        For each position, the number of image tokens up to and including it (`text_time`).

        Args:
            input_ids (`torch.Tensor` of shape `(B, T)`):
                Ids of whole texts.
            num_images (`int`):
                Number of images that each row has at most.

        Returns:
            `torch.Tensor` of shape `(B, T)`.

        Raises:
            `ValueError`: if a row has more image tokens than images.
        """
        text_time = self.text_time(input_ids)
        if text_time.numel() and text_time.max() > num_images:
            raise ValueError(
                f"A row has {int(text_time.max())} image tokens (id {self.config.image_token_id}), but the batch has "
                f"{num_images} images per row. Pass one image for each `<image>` of the text."
            )
        return text_time

    def text_time(self, input_ids: torch.Tensor) -> torch.Tensor:
        """As [`FlamingoModel.count_images`], for any number of images."""
        image_token_id = -1 if self.config.image_token_id is None else self.config.image_token_id
        return (input_ids == image_token_id).cumsum(dim=-1)

    @contextmanager
    def reading_images(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        image_hidden_states: torch.Tensor | None,
        text_time: torch.Tensor | None,
        cache: Any,
    ) -> Iterator[torch.Tensor]:
        """While this lasts, the language model reads the images, which it yields encoded."""
        has_images = pixel_values is not None or image_hidden_states is not None
        if has_images and self.config.image_token_id is None:
            raise ValueError("`image_token_id` is not set in the configuration: set it to the id of `<image>`.")
        tokens: Any = inputs_embeds if input_ids is None else input_ids
        if image_hidden_states is None and pixel_values is not None:
            image_hidden_states = self.get_image_features(pixel_values)
        elif image_hidden_states is None:
            image_hidden_states = self.blank_image_features(tokens)
        num_images = image_hidden_states.shape[1] * has_images
        if text_time is None and input_ids is not None and not _holds_tokens(cache):
            text_time = self.count_images(input_ids, num_images)
        elif text_time is None and has_images:
            raise ValueError(
                "Which image a token reads is counted in the ids of the whole text. With `inputs_embeds`, or with "
                "a `cache` that already holds a part of it, pass `text_time` too, of shape (batch, tokens): "
                "the number of image tokens up to and including each position."
            )
        if text_time is None:
            text_time = torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        # A model may generate further image tokens; there is nothing for them to show
        text_time = text_time.clamp(max=num_images)

        layers = self.language_model.get_submodule(self.layers_name)
        handles = [
            layers[int(layer)].register_forward_pre_hook(
                _before_layer(block, image_hidden_states, text_time), with_kwargs=True
            )
            for layer, block in self.gated_cross_attention.items()
        ]
        try:
            yield image_hidden_states
        finally:
            for handle in handles:
                handle.remove()

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        image_hidden_states: torch.Tensor | None = None,
        text_time: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        The language model's own output, without a head; arguments as [`FlamingoForConditionalGeneration.forward`]'s.
        """
        with self.reading_images(input_ids, inputs_embeds, pixel_values, image_hidden_states, text_time, cache):
            return self.language_model.base_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                cache=cache,
                inputs_embeds=inputs_embeds,
                **({} if position_ids is None else {"position_ids": position_ids}),
                **kwargs,
            )


def _holds_tokens(cache: Any) -> bool:
    return cache is not None and cache.get_seq_length() > 0


def _before_layer(block: nn.Module, media: torch.Tensor, text_time: torch.Tensor) -> Callable[..., Any]:
    """A pre-hook that runs a gated block on the hidden states that enter a decoder layer."""

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden = block(hidden, media.to(hidden.device, hidden.dtype), text_time.to(hidden.device))
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    return hook
