# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Tiny configurations of any vision-language model: the class's defaults with every size replaced by a small one.

Notable: families name the same sizes alike (`hidden_size`, `num_hidden_layers`, ...), so one table of small values
serves them all, and a family says only what is its own.
"""

from typing import Any

from tiny_models import tiny_tokenizer
from transformers import PreTrainedTokenizerFast


IMAGE_SIZE = 32
PATCH_SIZE = 8
TEXT_LAYERS = 3
VOCABULARY = 160
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "embed_dim", "out_hidden_size", "projection_dim", "projector_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "mlp_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("num_attention_heads", "num_heads", "attention_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "depth", "encoder_layers"), 2),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
    "decoder_layers": TEXT_LAYERS,
    "max_position_embeddings": 256,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
    "vocab_size": VOCABULARY,
    # Mixtures of experts
    "moe_intermediate_size": 16,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 2),
    **dict.fromkeys(("num_experts_per_tok", "n_group", "topk_group"), 1),
    # Ten times the usual range, so that a random model's predictions are far from uniform
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    # The checks compare two forwards in training mode
    **dict.fromkeys(("dropout", "attention_dropout", "hidden_dropout", "activation_dropout", "dropout_rate"), 0.0),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "layerdrop"), 0.0),
    **dict.fromkeys(("latent_dropout", "resid_pdrop", "attn_dropout"), 0.0),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Ids that no text here holds
    "video_token_id": VOCABULARY - 1,
    "video_token_index": VOCABULARY - 1,
    "vision_start_token_id": VOCABULARY - 2,
    "vision_end_token_id": VOCABULARY - 3,
    "image_start_token_id": VOCABULARY - 2,
    "image_end_token_id": VOCABULARY - 3,
    "boi_token_id": VOCABULARY - 2,
    "eoi_token_id": VOCABULARY - 3,
    "boi_token_index": VOCABULARY - 2,
    "eoi_token_index": VOCABULARY - 3,
    "audio_token_id": VOCABULARY - 4,
    "audio_token_index": VOCABULARY - 4,
}
TEXT_CONFIGS = ("text_config", "llm_config", "thinker_config")


def family_tokenizer(image_token: str | None = "<image>", single: str = "$A", markers: tuple[str, ...] = ()) -> Any:
    """The tests' tokenizer with an image token and the given markers; all ids are below `VOCABULARY`."""
    tokenizer: PreTrainedTokenizerFast = tiny_tokenizer(image_token, single)
    tokenizer.add_tokens(list(markers), special_tokens=True)
    assert len(tokenizer) < VOCABULARY - 4
    return tokenizer


def tiny_config(config_class: Any, **settings: Any) -> Any:
    """
    A configuration of `config_class` with the sizes above.

    Args:
        config_class (`type`):
            Subclass of [`~transformers.PreTrainedConfig`] with working defaults.
        **settings:
            Values that the family needs otherwise; a dict for each sub-configuration.
    """
    default = config_class()
    fields = {name: value for name, value in vars(default).items() if value is not None}
    values = {name: value for name, value in SIZES.items() if name in fields}
    image_token = family_tokenizer().image_token_id
    names = ("image_token_id", "image_token_index")
    if not settings.keys() & set(names):
        values |= {name: image_token for name in names if hasattr(default, name)}
    for name in config_class.sub_configs or {}:
        nested = getattr(default, name, None)
        if nested is not None:
            own = settings.pop(name, {})
            if not isinstance(own, dict):
                values[name] = own
                continue
            deeper = {"num_hidden_layers": TEXT_LAYERS} if name in TEXT_CONFIGS else {}
            values[name] = tiny_config(type(nested), **{**deeper, **own})
    return config_class(**{**values, **settings})
