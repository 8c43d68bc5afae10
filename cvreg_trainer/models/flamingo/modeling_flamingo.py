# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Flamingo: a language model that reads images through gated cross-attention (Alayrac et al., 2022, arXiv:2204.14198), as
published by OpenFlamingo (arXiv:2308.01390) and Otter (arXiv:2305.03726).

Notable: logits are those of the language model's own forward, so scaled and soft-capped heads come out right too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin
from transformers.utils import ModelOutput
from transformers.utils.deprecation import deprecate_kwarg

from .backbone_flamingo import FlamingoModel, FlamingoPreTrainedModel
from .configuration_flamingo import FlamingoConfig


@dataclass
class FlamingoCausalLMOutputWithPast(ModelOutput):
    """
    Output of [`FlamingoForConditionalGeneration`].

    Args:
        loss (`torch.Tensor` of shape `(1,)`, *optional*):
            Language-modelling loss, where `labels` were given.
        logits (`torch.Tensor` of shape `(B, T, vocab_size)`):
            Next-token logits.
        cache ([`~transformers.Cache`], *optional*):
            Cache of the language model, with `use_cache=True`.
        hidden_states (`tuple(torch.Tensor)`, *optional*):
            Hidden states of the language model, with `output_hidden_states=True`.
        attentions (`tuple(torch.Tensor)`, *optional*):
            Self-attention weights of the language model, with `output_attentions=True`.
        image_hidden_states (`torch.Tensor` of shape `(B, n_images, num_latents, vision_width)`, *optional*):
            What the perceiver resampler made of the images.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cache: Any = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None


class FlamingoForConditionalGeneration(FlamingoPreTrainedModel, GenerationMixin):
    """
    Flamingo with a language-modelling head.

    Args:
        config ([`FlamingoConfig`]):
            Configuration of the model.

    Example:

    ```python
    >>> from transformers import AutoProcessor
    >>> from cvreg_trainer.models.flamingo import FlamingoForConditionalGeneration, convert_openflamingo

    >>> convert_openflamingo("checkpoint.pt", "mosaicml/mpt-7b", "openai/clip-vit-large-patch14", "openflamingo-9b")
    >>> model = FlamingoForConditionalGeneration.from_pretrained("openflamingo-9b", dtype="bfloat16")
    >>> processor = AutoProcessor.from_pretrained("openflamingo-9b")
    >>> inputs = processor(images=image, text="<image>Output:", return_tensors="pt")
    >>> processor.decode(model.generate(**inputs, max_new_tokens=20)[0], skip_special_tokens=True)
    'Output:two cats on a sofa'
    ```
    """

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__(config)
        self.model = FlamingoModel(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.model.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.model.language_model.set_output_embeddings(new_embeddings)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode images; see [`FlamingoModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values)

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_hidden_states: torch.Tensor | None = None,
        text_time: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> FlamingoCausalLMOutputWithPast:
        """
        Args:
            input_ids (`torch.Tensor` of shape `(B, T)`):
                Ids of the text; `<image>` stands where an image is.
            pixel_values (`torch.Tensor` of shape `(B, n_images, frames, C, H, W)`, *optional*):
                Normalised pixels; rows with fewer images are filled up with zeros.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
                1 for real tokens, 0 for padding on either side.
            position_ids (`torch.Tensor` of shape `(B, T)`, *optional*):
                Positions, for language models that take them.
            cache ([`~transformers.Cache`], *optional*):
                Cache of the language model.
            inputs_embeds (`torch.Tensor` of shape `(B, T, text_width)`, *optional*):
                In place of `input_ids`.
            labels (`torch.Tensor` of shape `(B, T)`, *optional*):
                Ids to predict, `-100` where there is no loss. They are shifted inside.
            image_hidden_states (`torch.Tensor` of shape `(B, n_images, num_latents, vision_width)`, *optional*):
                Encoded images, in place of `pixel_values`.
            text_time (`torch.Tensor` of shape `(B, T)`, *optional*):
                Number of the image that each token reads, from 1; 0 for none. Counted in `input_ids` by default.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to `0`):
                Compute the last so many logits only, or those at the given positions; 0 for all.

        Returns:
            [`FlamingoCausalLMOutputWithPast`].

        Raises:
            `ValueError`: if a row has more image tokens than images, or if `text_time` is needed.
        """
        kwargs.pop("return_dict", None)
        num_items = kwargs.pop("num_items_in_batch", None)
        with self.model.reading_images(
            input_ids, inputs_embeds, pixel_values, image_hidden_states, text_time, cache
        ) as image_hidden_states:
            outputs = self.model.language_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                cache=cache,
                inputs_embeds=inputs_embeds,
                logits_to_keep=logits_to_keep,
                **({} if position_ids is None else {"position_ids": position_ids}),
                **kwargs,
            )
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=outputs.logits,
                labels=labels,
                vocab_size=outputs.logits.shape[-1],
                num_items_in_batch=num_items,
            )
        return FlamingoCausalLMOutputWithPast(
            loss=loss,
            logits=outputs.logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=image_hidden_states,
        )

    @torch.no_grad()
    def generate(
        self, inputs: torch.Tensor | None = None, *args: Any, pixel_values: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As [`~transformers.GenerationMixin.generate`]; the images are encoded once, before the first token."""
        input_ids = kwargs.get("input_ids") if inputs is None else inputs
        if input_ids is not None and kwargs.get("image_hidden_states") is None:
            self.model.count_images(input_ids, 0 if pixel_values is None else pixel_values.shape[1])
            if pixel_values is None:
                kwargs["image_hidden_states"] = self.model.blank_image_features(input_ids)
            else:
                kwargs["image_hidden_states"] = self.get_image_features(pixel_values)
        return GenerationMixin.generate(self, inputs, *args, **kwargs)

    # `generate` accepts the forward's arguments only where this parameter is called `kwargs`
    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        model_inputs: Any = GenerationMixin.prepare_inputs_for_generation(self, input_ids, *args, **kwargs)
        new_ids = model_inputs.get("input_ids")
        if new_ids is not None:
            model_inputs["text_time"] = self.model.text_time(input_ids)[:, -new_ids.shape[1] :]
        return model_inputs


__all__ = ["FlamingoForConditionalGeneration", "FlamingoModel", "FlamingoPreTrainedModel"]
