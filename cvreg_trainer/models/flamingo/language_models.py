# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Language models of published checkpoints: their configurations, weights and names in today's transformers.

Notable: nothing of a checkpoint's own code is run. MPT-1B ("mosaic_gpt", which transformers does not have) becomes an
MPT with layer norm on queries and keys; settings that transformers' MPT does not know are refused, not ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, MptConfig, PreTrainedConfig


Weights = dict[str, torch.Tensor]

# Buffers that older versions of transformers saved and newer ones compute
BUFFERS = ("position_ids", "inv_freq", ".attention.bias", ".attention.masked_bias")
# Parts of names in transformers 5 and in older files: MPT-1B's, and GPT-NeoX's head
OLD_NAMES = {
    ".norm_1.": ".ln_1.",
    ".norm_2.": ".ln_2.",
    ".ffn.up_proj.": ".mlp.mlp_up.",
    ".ffn.down_proj.": ".mlp.mlp_down.",
    "transformer.norm_f.": "transformer.ln_f.",
    "lm_head.": "embed_out.",
}


def all_names(name: str) -> list[str]:
    """The names under which a language model's parameter is found in files, the one of transformers 5 first."""
    return [name, *(name.replace(new, old) for new, old in OLD_NAMES.items() if new in name)]


def load_torch_file(path: str | Path) -> Any:
    """Read a file of `torch.save`; tensors and plain containers only."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_weights(folder: Path) -> Weights:
    """
    Read all weights of a folder, `model*.safetensors` or else `pytorch_model*.bin`, without computed buffers.

    Raises:
        `ValueError`: if there are none.
    """
    for pattern, load in (("model*.safetensors", load_file), ("pytorch_model*.bin", load_torch_file)):
        files = sorted(folder.glob(pattern))
        if files:
            weights = {name: tensor for file in files for name, tensor in load(file).items()}
            return {name: tensor for name, tensor in weights.items() if not name.endswith(BUFFERS)}
    raise ValueError(f"{folder} holds no weights, neither model*.safetensors nor pytorch_model*.bin.")


def text_config_from(settings: Mapping[str, Any]) -> PreTrainedConfig:
    """
    Configuration of a language model.

    Args:
        settings (`Mapping[str, Any]`):
            Content of a published `config.json`, `model_type` included.

    Raises:
        `ValueError`: if it is an MPT with a setting that transformers' MPT does not know.
    """
    if settings["model_type"] in ("mpt", "mosaic_gpt"):
        return _mpt_config(settings)
    return AutoConfig.for_model(**settings)


def _mpt_config(settings: Mapping[str, Any]) -> MptConfig:
    # MPT-1B has the settings of attention at the top, some with a prefix; MPT has them in `attn_config`
    attention = {name.removeprefix("attn_"): value for name, value in settings.items()}
    attention |= settings.get("attn_config") or {}
    fixed = {
        "alibi": (attention.get("alibi", settings["model_type"] == "mpt"), True),
        "alibi_bias_max": (attention.get("alibi_bias_max", 8), 8),
        "prefix_lm": (attention.get("prefix_lm") or False, False),
        "attn_type": (attention.get("attn_type", "multihead_attention"), "multihead_attention"),
        "expansion_ratio": (settings.get("mlp_ratio", settings.get("expansion_ratio", 4)), 4),
        "logit_scale": (settings.get("logit_scale"), None),
    }
    for name, (value, known) in fixed.items():
        if value != known:
            raise ValueError(f"The language model has `{name}={value!r}`, but transformers' MPT knows only {known!r}.")
    heads = settings["n_heads"]
    if settings["model_type"] == "mosaic_gpt" and heads & (heads - 1):
        raise ValueError(f"The language model has `n_heads={heads}`; only powers of 2 are known here.")
    kept = ["d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size", "layer_norm_epsilon", "initializer_range"]
    kept += ["tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"]
    return MptConfig(
        **{name: settings[name] for name in kept if settings.get(name) is not None},
        attn_config={
            "qk_ln": bool(attention.get("qk_ln")),
            "clip_qkv": attention.get("clip_qkv"),
            "softmax_scale": attention.get("softmax_scale"),
        },
    )


def load_language_model(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedConfig, Weights]:
    """
    Load a causal language model.

    Args:
        folder (`Path`):
            Folder with `config.json` and weights.
        dtype (`torch.dtype`):
            Type of the weights that are returned.

    Returns:
        `tuple[PreTrainedConfig, dict[str, torch.Tensor]]`: its configuration, and its weights by their names in files
        ([`all_names`]).

    Raises:
        `ValueError`: if a weight is missing, or if it is an MPT with a setting that transformers' MPT does not know.
    """
    settings, _ = PreTrainedConfig.get_config_dict(folder)
    if settings["model_type"] in ("mpt", "mosaic_gpt"):
        return text_config_from(settings), {name: tensor.to(dtype) for name, tensor in read_weights(folder).items()}
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(f"The language model {folder} lacks weights: {sorted(report['missing_keys'])}.")
    return model.config, model.state_dict()
