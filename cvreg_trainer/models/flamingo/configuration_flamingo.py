# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Configuration of Flamingo models. The defaults are OpenFlamingo's; the language model is any of transformers'."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, CLIPVisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class FlamingoConfig(PreTrainedConfig):
    r"""
    Configuration of a [`FlamingoForConditionalGeneration`].

    Args:
        vision_config (`dict` or [`~transformers.CLIPVisionConfig`], *optional*):
            CLIP vision tower. Defaults to ViT-L/14 at 224 pixels, the tower of all published checkpoints.
        text_config (`dict` or [`~transformers.PreTrainedConfig`], *optional*, defaults to MPT's):
            Causal language model of transformers. MPT's `attn_config["qk_ln"]` is respected (MPT-1B).
        cross_attn_every_n_layers (`int`, *optional*, defaults to `1`):
            A gated cross-attention block stands before decoder layer i (counted from 0) where i + 1 is a multiple.
        image_token_id (`int`, *optional*):
            Id of `<image>`, the token that stands for an image. Needed for input with images.
        num_latents (`int`, *optional*, defaults to `64`):
            Number of vectors to which the perceiver resampler condenses an image or video.
        num_perceiver_layers (`int`, *optional*, defaults to `6`):
            Number of layers of the perceiver resampler.
        num_cross_attention_heads (`int`, *optional*, defaults to `8`):
            Number of attention heads of the resampler and of the gated blocks.
        cross_attention_head_dim (`int`, *optional*, defaults to `64`):
            Size of each of these heads.
        max_frames (`int`, *optional*):
            Number of frame embeddings: the largest number of frames of a video. Without it frames have no position.

    Raises:
        `ValueError`: if there is no decoder layer for the first gated block to stand before.

    Example:

    ```python
    >>> from transformers import LlamaConfig
    >>> from cvreg_trainer.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration

    >>> config = FlamingoConfig(text_config=LlamaConfig(), cross_attn_every_n_layers=4, image_token_id=32001)
    >>> model = FlamingoForConditionalGeneration(config)
    ```
    """

    model_type = "flamingo"
    # TRL asks for it when it loads a model by its path: no code comes with the checkpoint
    auto_map: ClassVar[dict[str, str]] = {}
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=CLIPVisionConfig,
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 224,
                "patch_size": 14,
                "projection_dim": 768,
            },
        ),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="mpt"),
    }

    vision_config: Any = None
    text_config: Any = None
    cross_attn_every_n_layers: int = 1
    image_token_id: int | None = None
    num_latents: int = 64
    num_perceiver_layers: int = 6
    num_cross_attention_heads: int = 8
    cross_attention_head_dim: int = 64
    max_frames: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # The language model ties its own embeddings; whoever asks this configuration gets its answer
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)
        if not 1 <= self.cross_attn_every_n_layers <= self.text_config.num_hidden_layers:
            raise ValueError(
                f"`cross_attn_every_n_layers={self.cross_attn_every_n_layers}` leaves the language model without "
                f"gated blocks. Choose a number from 1 to {self.text_config.num_hidden_layers}, its number of layers."
            )


__all__ = ["FlamingoConfig"]
