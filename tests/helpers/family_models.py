# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Tiny victims of the families whose inputs a collate function makes: their processors need torchvision, or add nothing.

Notable: an entry says what is the family's own; `family_configs` says everything else. Where transformers has an image
processor for PIL images that is more than a resize, the collate function calls it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from family_configs import IMAGE_SIZE, PATCH_SIZE, TEXT_LAYERS, VOCABULARY, family_tokenizer, tiny_config
from family_inputs import Pixels, RowCollator, patches, processed, stacked
from family_training import Victim
from transformers import CONFIG_MAPPING, set_seed
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


SQUARE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
PINPOINTS = [[IMAGE_SIZE, 2 * IMAGE_SIZE]]
AREA = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
PARTIAL_ROPE = {**ROPE, "partial_rotary_factor": 1.0}
HYBRID = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
}


def build_model(name: str, **settings: Any) -> Any:
    """The tiny random model of a `model_type`."""
    set_seed(0)
    config = tiny_config(CONFIG_MAPPING[name], **settings)
    model = getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[name])(config)
    for parameter in model.parameters():
        # Gates, queries and projections that start at zero would hide the image
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def own(
    name: str, pixels: Pixels | None = None, inputs: str = "pixels", num_tokens: int | None = None, **settings: Any
) -> Victim:
    """A family with a collate function around `pixels`."""
    model = build_model(name, **settings)
    tokenizer = family_tokenizer()
    collator = RowCollator(model, tokenizer, pixels or stacked(), num_tokens)
    return Victim(model, tokenizer, collator, inputs=f"collate function, {inputs}")


def with_processor(name: str, processor: str, options: dict[str, Any] | None = None, **settings: Any) -> Victim:
    """A family with a collate function around the image processor `processor`."""
    image_processor = getattr(transformers, f"{processor}ImageProcessorPil")(**(options or {}))
    return own(name, processed(image_processor), f"{processor}ImageProcessorPil", **settings)


def qwen(name: str, temporal: int = 2, **settings: Any) -> Victim:
    """A family with the image processor of Qwen2-VL."""
    options = {"patch_size": PATCH_SIZE, "temporal_patch_size": temporal, "merge_size": 2, "size": AREA}
    return with_processor(name, "Qwen2VL", options, **settings)


def _sizes(number: int) -> torch.Tensor:
    return torch.tensor([[IMAGE_SIZE, IMAGE_SIZE]] * number)


def _fuyu(images: list[Any]) -> dict[str, Any]:
    return {"pixel_values": patches(images)["pixel_values"]}


def _gemma4() -> Victim:
    return with_processor(
        "gemma4",
        "Gemma4",
        {"patch_size": PATCH_SIZE, "max_soft_tokens": 70, "pooling_kernel_size": 2},
        text_config={
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "global_head_dim": 16,
        },
        vision_config=tiny_config(transformers.Gemma4VisionConfig, pooling_kernel_size=2, global_head_dim=16),
    )


def _llama4() -> Victim:
    layers = TEXT_LAYERS
    text = {"intermediate_size_mlp": 32, "layer_types": ["full_attention"] * layers, "no_rope_layers": [1] * layers}
    vision = {"intermediate_size": 128, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    victim = own("llama4", num_tokens=4, text_config={**text, "moe_layers": [1]}, vision_config=vision)
    # The class does not return its load-balancing loss
    settings = {"router_aux_loss_coef": 0.0}
    return victim._replace(settings=settings, inputs=f"{victim.inputs}; `router_aux_loss_coef=0.0`")


def _vq(**settings: Any) -> dict[str, Any]:
    """A small image tokenizer."""
    return {"base_channels": 32, "latent_channels": 8, "embed_dim": 8, "num_res_blocks": 1, **settings}


def _chameleon() -> Victim:
    codes = {"IMGIMGAZ": 101, "IMGIMGBZ": 102, "IMGIMGCZ": 103}
    return own(
        "chameleon",
        num_tokens=16,
        vocabulary_map={"<image>": family_tokenizer().image_token_id, **codes},
        num_hidden_layers=TEXT_LAYERS,
        vq_config=_vq(num_embeddings=3, channel_multiplier=[1, 1, 1, 1], resolution=IMAGE_SIZE),
    )


def _janus() -> Victim:
    image_tokenizer = _vq(num_embeddings=8, channel_multiplier=[1, 1], projection_dim=32, image_token_embed_dim=32)
    return own("janus", num_tokens=16, vq_config=image_tokenizer)


OWN: dict[str, Callable[[], Victim]] = {
    "aria": partial(own, "aria", projector_patch_to_query_dict={16: 4}),
    "chameleon": _chameleon,
    "cohere2_vision": partial(own, "cohere2_vision"),
    "cosmos3_edge": partial(qwen, "cosmos3_edge", temporal=1, text_config={"rope_parameters": ROPE}),
    "cosmos3_omni": partial(qwen, "cosmos3_omni"),
    "deepseek_vl": partial(own, "deepseek_vl", num_tokens=16),
    "exaone4_5": partial(qwen, "exaone4_5"),
    "fuyu": partial(own, "fuyu", _fuyu, "patches", num_tokens=16),
    "gemma4": _gemma4,
    "glm46v": partial(qwen, "glm46v", text_config={"rope_parameters": PARTIAL_ROPE}),
    "glm4v": partial(qwen, "glm4v", text_config={"rope_parameters": PARTIAL_ROPE}),
    "glm4v_moe": partial(qwen, "glm4v_moe", text_config={"rope_parameters": PARTIAL_ROPE}),
    "glm_ocr": partial(qwen, "glm_ocr", text_config={"rope_parameters": PARTIAL_ROPE}),
    "got_ocr2": partial(own, "got_ocr2"),
    "hyperclovax_vision_v2": partial(qwen, "hyperclovax_vision_v2"),
    "internvl": partial(own, "internvl"),
    "janus": _janus,
    "lfm2_vl": partial(own, "lfm2_vl", patches, "patches"),
    "lfm3_vl": partial(qwen, "lfm3_vl"),
    "lighton_ocr": partial(own, "lighton_ocr", stacked(image_sizes=_sizes)),
    "llama4": _llama4,
    "llava (Pixtral tower)": partial(
        own,
        "llava",
        stacked(image_sizes=_sizes),
        vision_config=tiny_config(transformers.PixtralVisionConfig),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    ),
    "llava_next_video": partial(
        with_processor,
        "llava_next_video",
        "LlavaNext",
        {"size": {"shortest_edge": IMAGE_SIZE}, "crop_size": SQUARE, "image_grid_pinpoints": PINPOINTS},
        image_grid_pinpoints=PINPOINTS,
    ),
    "llava_onevision": partial(
        with_processor,
        "llava_onevision",
        "LlavaOnevision",
        {"size": SQUARE, "image_grid_pinpoints": PINPOINTS},
        image_grid_pinpoints=PINPOINTS,
    ),
    "minimax_m3_vl": partial(qwen, "minimax_m3_vl"),
    "mistral3": partial(own, "mistral3", stacked(image_sizes=_sizes)),
    "mistral_large4": partial(own, "mistral_large4", stacked(image_sizes=_sizes)),
    "ovis2": partial(own, "ovis2"),
    "paddleocr_vl": partial(
        with_processor,
        "paddleocr_vl",
        "PaddleOCRVL",
        {"patch_size": PATCH_SIZE, "merge_size": 2, "size": AREA},
        text_config={"rope_parameters": ROPE},
    ),
    "pi0": partial(own, "pi0", num_tokens=16),
    "qianfan_ocr": partial(own, "qianfan_ocr"),
    "qwen2_5_omni_thinker": partial(
        qwen, "qwen2_5_omni_thinker", text_config={"rope_parameters": ROPE}, vision_start_token_id=VOCABULARY - 2
    ),
    "qwen2_5_vl": partial(qwen, "qwen2_5_vl", text_config={"rope_parameters": ROPE}),
    "qwen2_vl": partial(qwen, "qwen2_vl", text_config={"rope_parameters": ROPE}),
    "qwen3_5": partial(qwen, "qwen3_5", text_config=HYBRID),
    "qwen3_5_moe": partial(qwen, "qwen3_5_moe", text_config=HYBRID),
    "qwen3_omni_moe_thinker": partial(
        qwen, "qwen3_omni_moe_thinker", text_config={"rope_parameters": ROPE}, vision_start_token_id=VOCABULARY - 2
    ),
    "qwen3_vl": partial(qwen, "qwen3_vl"),
    "qwen3_vl_moe": partial(qwen, "qwen3_vl_moe"),
    "smolvlm": partial(own, "smolvlm", stacked(lead=1)),
    "step3p7": partial(own, "step3p7", text_config={"sliding_window": 64}),
    "video_llama_3": partial(
        with_processor, "video_llama_3", "VideoLlama3", {"patch_size": PATCH_SIZE, "merge_size": 1, "size": AREA}
    ),
    "video_llava": partial(own, "video_llava"),
}
