# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The state dicts of OpenFlamingo's and Otter's checkpoints, read strictly.

Notable: names are mapped in one direction, from this package's to the published ones. Each parameter of the new model
asks for its weight: one that is not there is missing, and a weight that none has asked for is left over.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, CLIPImageProcessorPil, PreTrainedConfig
from transformers.utils import logging

from .configuration_flamingo import FlamingoConfig
from .language_models import Weights, all_names
from .modeling_flamingo import FlamingoForConditionalGeneration
from .processing_flamingo import FlamingoProcessor


logger = logging.get_logger(__name__)

TOKENIZER_FILES = ("tokenizer.", "tokenizer_config.", "vocab.", "spiece.")


def find_folder(name: str | Path) -> Path:
    """The folder of that name, or a download of the Hub repository of that name."""
    return Path(name) if Path(name).is_dir() else Path(snapshot_download(str(name)))


def load_tokenizer(name: str | Path, special_tokens: Sequence[str]) -> Any:
    """
    Load a tokenizer and append the tokens that it lacks, and `<PAD>` if it has no padding token: in the order of the
    reference implementations, since the place of a token is its id. Returns None if a folder has no tokenizer.
    """
    # Asked for, since transformers makes up a tokenizer of two tokens where there is none
    if Path(name).is_dir() and not any(file.name.startswith(TOKENIZER_FILES) for file in Path(name).iterdir()):
        logger.warning(
            f"{name} has no tokenizer: no processor is written, and `image_token_id` of the model's configuration "
            "must be set before it can read images. Pass `tokenizer=` to have both."
        )
        return None
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
    vocabulary = tokenizer.get_vocab()
    tokenizer.add_tokens([token for token in special_tokens if token not in vocabulary], special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.add_tokens(["<PAD>"], special_tokens=True)
        tokenizer.pad_token = "<PAD>"
    return tokenizer


def flamingo_config(
    weights: Weights, text_config: PreTrainedConfig, vision_config: PreTrainedConfig, tokenizer: Any
) -> FlamingoConfig:
    """
    Configuration of a published checkpoint, with the sizes of its weights.

    Raises:
        `ValueError`: if it has no resampler or no gated cross-attention.
    """
    gated = re.compile(r"lang_encoder\.(?:.+\.(\d+)\.gated_cross_attn_layer|gated_cross_attn_layers\.(\d+))\.")
    blocks = {int(match[1] or match[2]) for name in weights if (match := gated.match(name))}
    layers = {int(match[1]) for name in weights if (match := re.match(r"perceiver\.layers\.(\d+)\.", name))}
    inner = {len(weights[name]) for name in weights if name.endswith("to_q.weight")}
    if "perceiver.latents" not in weights or not layers or not blocks or not inner:
        raise ValueError(
            "This is no Flamingo: the checkpoint lacks `perceiver.latents`, `perceiver.layers` or "
            f"`gated_cross_attn_layer`. It begins with {sorted(weights)[:5]}."
        )
    frames = weights.get("perceiver.frame_embs")
    dtype = weights["perceiver.latents"].dtype
    vision_config.dtype = text_config.dtype = dtype
    return FlamingoConfig(
        vision_config=vision_config,
        text_config=text_config,
        cross_attn_every_n_layers=min(blocks) + 1,
        image_token_id=None if tokenizer is None else tokenizer.convert_tokens_to_ids("<image>"),
        num_latents=len(weights["perceiver.latents"]),
        num_perceiver_layers=max(layers) + 1,
        cross_attention_head_dim=min(inner) // FlamingoConfig.num_cross_attention_heads,
        max_frames=None if frames is None else len(frames),
        dtype=dtype,
    )


class PublishedNames:
    """
    The names of parameters in published checkpoints.

    Args:
        layers (`str`):
            Path of the decoder layers in the language model.
        otter (`bool`):
            Whether the checkpoint is Otter's; OpenFlamingo's otherwise.
    """

    def __init__(self, layers: str, otter: bool) -> None:
        self.layers = layers
        self.otter = otter

    def __call__(self, name: str) -> list[str]:
        """The names, the usual one first, of the parameter that is `name` in [`FlamingoForConditionalGeneration`]."""
        part, _, rest = name.removeprefix("model.").partition(".")
        if part == "vision_tower":
            return [f"vision_encoder.vision_model.{rest}"]
        if part == "perceiver":
            return [f"perceiver.{rest if self.otter else self._openflamingo_resampler(rest)}"]
        if part == "gated_cross_attention":
            layer, _, rest = rest.partition(".")
            rest = rest if self.otter else re.sub("^feed_forward", "ff", rest)
            places = (f"{self.layers}.{layer}.gated_cross_attn_layer", f"gated_cross_attn_layers.{layer}")
            return [f"lang_encoder.{place}.{rest}" for place in places]
        return [published for variant in all_names(rest) for published in self._language_model(variant)]

    @staticmethod
    def _openflamingo_resampler(rest: str) -> str:
        """Each layer is a list of attention and feed-forward network."""
        return re.sub(r"^(layers\.\d+)\.(feed_forward\.)?", lambda match: f"{match[1]}.{int(bool(match[2]))}.", rest)

    def _language_model(self, name: str) -> list[str]:
        in_layer = name.removeprefix(f"{self.layers}.")
        if in_layer == name:
            return [f"lang_encoder.{name}"]
        layer, _, rest = in_layer.partition(".")
        return [
            f"lang_encoder.{self.layers}.{layer}.decoder_layer.{rest}",
            f"lang_encoder.old_decoder_blocks.{layer}.{rest}",
        ]


def empty_model(
    config: FlamingoConfig, weights: Weights, otter: bool
) -> tuple[FlamingoForConditionalGeneration, PublishedNames]:
    """
    A model without weights, and the names of its parameters in the checkpoint.

    The size of the vocabulary is that of the checkpoint's embeddings: the configurations that it comes with were
    written before the table grew by the new tokens, or shrank to the tokens in use.
    """
    with torch.device("meta"):
        model = FlamingoForConditionalGeneration(config)
        names = PublishedNames(model.model.layers_name, otter)
        embedding = names(parameter_name(model, model.get_input_embeddings()))
        rows = [len(weights[name]) for name in embedding if name in weights]
        if rows and rows[0] != config.text_config.vocab_size:
            config.text_config.vocab_size = rows[0]
            model = FlamingoForConditionalGeneration(config)
    return model, names


def parameter_name(model: FlamingoForConditionalGeneration, module: Any) -> str:
    """The name of a module's weight."""
    return next(name for name, part in model.named_modules() if part is module) + ".weight"


def fill(
    model: FlamingoForConditionalGeneration, weights: Weights, names: PublishedNames, others: Weights
) -> FlamingoForConditionalGeneration:
    """
    Give an empty model its weights.

    Args:
        model ([`FlamingoForConditionalGeneration`]):
            Model without weights.
        weights (`dict[str, torch.Tensor]`):
            The checkpoint, by its published names.
        names ([`PublishedNames`]):
            The published names of a parameter.
        others (`dict[str, torch.Tensor]`):
            Weights by the model's own names, for what the checkpoint does not hold.

    Raises:
        `ValueError`: if a weight is missing, is left over, has another shape, or is there twice with different values.
    """
    weights, state = dict(weights), dict(others)
    missing, misshapen = [], []
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    for name, parameter in model.state_dict().items():
        found = {published: weights.pop(published) for published in names(name) if published in weights}
        for tensor in found.values():
            if not torch.equal(tensor, next(iter(found.values()))):
                raise ValueError(f"The checkpoint has one parameter with different values: {list(found)}.")
            state[name] = tensor
        if name in state and state[name].shape != parameter.shape:
            misshapen.append(f"{names(name)[0]} {tuple(state[name].shape)} for {tuple(parameter.shape)}")
        elif name not in state and name not in tied:
            missing.append(" or ".join(names(name)))
    if missing or weights or misshapen:
        problems = {"missing keys": missing, "left over keys": sorted(weights), "keys of another shape": misshapen}
        text = ", ".join(f"{problem} {keys}" for problem, keys in problems.items() if keys)
        raise ValueError(f"The checkpoint does not fit its configuration: {text}.")
    config = model.config
    if config.image_token_id is not None and config.image_token_id >= config.text_config.vocab_size:
        raise ValueError(
            f"`<image>` has the id {config.image_token_id} in the tokenizer, but the checkpoint has only "
            f"{config.text_config.vocab_size} embeddings. Pass the checkpoint's own tokenizer as `tokenizer=`."
        )
    for name, source in tied.items():
        if not torch.equal(state.setdefault(name, state[source]), state[source]):
            raise ValueError(f"`{names(name)[0]}` differs from `{names(source)[0]}`, but the two are tied.")
        state[name] = state[source]
    model.load_state_dict({name: tensor.to(config.dtype) for name, tensor in state.items()}, assign=True)
    model.tie_weights()
    return model


def save(model: FlamingoForConditionalGeneration, tokenizer: Any, out: str | Path) -> Path:
    """Write the model, and the processor if there is a tokenizer, in transformers' form; returns the folder."""
    if tokenizer is not None:
        size = model.config.vision_config.image_size
        # Pillow's bicubic resizing, as both projects trained with
        image_processor = CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )
        FlamingoProcessor(image_processor, tokenizer).save_pretrained(out)
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|endofchunk|>")
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    return Path(out)
