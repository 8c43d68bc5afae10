# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Where a model's decoder layers are, for any family: found by shape, not by name."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn
from transformers import PreTrainedModel


def find_decoder_layer(model: PreTrainedModel, layer: int | str | None = None) -> str:
    """
    Dotted name of a decoder layer.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Model whose text decoder is a stack of layers in one `torch.nn.ModuleList`.
        layer (`int` or `str`, *optional*):
            Index from 0 (negative from the end), or the dotted name of any module, which is checked and returned.
            Defaults to the middle layer, `num_hidden_layers // 2`.

    Raises:
        `ValueError`: if there is no such layer, naming what there is.
    """
    if isinstance(layer, str):
        names = dict(model.named_modules())
        if layer not in names:
            close = difflib.get_close_matches(layer, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"`feature_layer={layer!r}` is not a module of {type(model).__name__}.{hint}")
        return layer
    name, num_layers = _find_stack(model)
    index = num_layers // 2 if layer is None else layer
    if not -num_layers <= index < num_layers:
        raise ValueError(
            f"`feature_layer={layer}` is out of range: the decoder of {type(model).__name__} has {num_layers} layers "
            f"({name!r}). Choose an index from {-num_layers} to {num_layers - 1}."
        )
    return f"{name}.{index % num_layers}"


def _find_stack(model: PreTrainedModel) -> tuple[str, int]:
    decoder: Any = model
    # `get_decoder` steps down one wrapper at a time (BLIP-2: the causal LM, its model, the decoder)
    while hasattr(decoder, "get_decoder") and decoder.get_decoder() is not decoder:
        decoder = decoder.get_decoder()
    config = model.config.get_text_config(decoder=True)
    depths = {getattr(config, key, None) for key in ("num_hidden_layers", "num_decoder_layers", "decoder_layers")}
    stacks = [
        (name.count("."), len(name), name, len(module))
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) in depths
    ]
    if not stacks:
        raise ValueError(
            f"No decoder layers were found in {type(model).__name__} (a `ModuleList` of {max(filter(None, depths))} "
            "layers inside `get_decoder()`). Set `feature_layer` to the dotted name of one of its modules."
        )
    # The outermost stack: vision towers inside a decoder that holds everything lie deeper. Of several at one depth the
    # one with the shortest name: IDEFICS can have as many cross-attention layers as layers
    _, _, name, num_layers = min(stacks)
    prefix = next(path for path, module in model.named_modules() if module is decoder)
    return ".".join(filter(None, (prefix, name))), num_layers
