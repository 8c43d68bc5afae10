# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Tiny victims of the families whose own processor makes the inputs, through the collator that the trainer chooses.

Notable: all take prompt-completion rows without a chat template. Those whose image token stands in the text want it in
the prompt, the others (BLIP-2, GIT, IDEFICS, Kosmos-2) put images there themselves.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers
from family_configs import IMAGE_SIZE, PATCH_SIZE, TEXT_LAYERS, family_tokenizer
from family_models import AREA, PINPOINTS, ROPE, SQUARE, build_model
from family_training import Victim
from tiny_models import tiny_blip2_opt, tiny_blip2_t5, tiny_mllama


def _image_processor(name: str, **settings: Any) -> Any:
    return getattr(transformers, f"{name}ImageProcessorPil")(**settings)


def _victim(model: Any, processor: Any, image_token: str = "") -> Victim:
    return Victim(model, processor, image_token=image_token, inputs=type(processor).__name__)


def _clip() -> Any:
    return _image_processor("CLIP", size={"shortest_edge": IMAGE_SIZE}, crop_size=SQUARE)


def _llava(name: str, **settings: Any) -> Victim:
    options = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = transformers.LlavaProcessor(_clip(), family_tokenizer(), PATCH_SIZE, **options)
    return _victim(build_model(name, **settings), processor, "<image>")


def _llava_next() -> Victim:
    pinpoints = {"image_grid_pinpoints": [*PINPOINTS, PINPOINTS[0][::-1]]}
    images = _image_processor("LlavaNext", size={"shortest_edge": IMAGE_SIZE}, crop_size=SQUARE, **pinpoints)
    options = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = transformers.LlavaNextProcessor(images, family_tokenizer(), PATCH_SIZE, **options)
    return _victim(build_model("llava_next", **pinpoints), processor, "<image>")


def _ready(build: Callable[..., Any], image_token: str = "", layers: int = TEXT_LAYERS) -> Victim:
    """A victim that other tests use, too."""
    model, processor = build(layers=layers)
    return _victim(model, processor, image_token)


def _instructblip() -> Victim:
    tokenizer = family_tokenizer(None)
    images = _image_processor("Blip", size=SQUARE)
    processor = transformers.InstructBlipProcessor(images, tokenizer, family_tokenizer(), num_query_tokens=4)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    return _victim(build_model("instructblip", num_query_tokens=4, image_token_index=image_token), processor)


def _blip() -> Victim:
    processor = transformers.BlipProcessor(_image_processor("Blip", size=SQUARE), family_tokenizer())
    return _victim(build_model("blip"), processor)


def _git() -> Victim:
    processor = transformers.GitProcessor(_clip(), family_tokenizer())
    return _victim(build_model("git", num_hidden_layers=TEXT_LAYERS), processor)


def _idefics() -> Victim:
    tokenizer = family_tokenizer(markers=("<fake_token_around_image>",))
    processor = transformers.IdeficsProcessor(_image_processor("Idefics", image_size=IMAGE_SIZE), tokenizer)
    model = build_model("idefics", num_hidden_layers=TEXT_LAYERS, alpha_initializer="ones")
    return _victim(model, processor)


def _idefics2() -> Victim:
    tokenizer = family_tokenizer(None)
    images = _image_processor("Idefics2", size={"shortest_edge": IMAGE_SIZE // 2, "longest_edge": IMAGE_SIZE})
    processor = transformers.Idefics2Processor(images, tokenizer, image_seq_len=4)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    model = build_model("idefics2", perceiver_config={"resampler_n_latents": 4}, image_token_id=image_token)
    return _victim(model, processor, "<image>")


def _idefics3() -> Victim:
    edge = {"longest_edge": IMAGE_SIZE}
    images = _image_processor("Idefics3", size=edge, max_image_size=edge, do_image_splitting=False)
    processor = transformers.Idefics3Processor(images, family_tokenizer(markers=("<global-img>",)), image_seq_len=4)
    return _victim(build_model("idefics3"), processor, "<image>")


def _paligemma() -> Victim:
    images = _image_processor("Siglip", size=SQUARE)
    images.image_seq_length = (IMAGE_SIZE // PATCH_SIZE) ** 2
    processor = transformers.PaliGemmaProcessor(images, family_tokenizer())
    return _victim(build_model("paligemma"), processor, "<image>")


def _gemma_processor() -> Any:
    tokenizer = family_tokenizer(markers=("<start_of_image>", "<end_of_image>"))
    tokenizer.boi_token, tokenizer.eoi_token = "<start_of_image>", "<end_of_image>"
    tokenizer.boi_token_id = tokenizer.convert_tokens_to_ids("<start_of_image>")
    return transformers.Gemma3Processor(_image_processor("Gemma3", size=SQUARE), tokenizer, image_seq_length=4)


def _gemma3() -> Victim:
    return _victim(build_model("gemma3", mm_tokens_per_image=4), _gemma_processor(), "<start_of_image>")


def _t5gemma2() -> Victim:
    encoder = {"mm_tokens_per_image": 4, "text_config": {"num_hidden_layers": 2}}
    model = build_model("t5gemma2", encoder=encoder, decoder={"num_hidden_layers": TEXT_LAYERS})
    return _victim(model, _gemma_processor(), "<start_of_image>")


def _aya_vision() -> Victim:
    tokenizer = family_tokenizer(markers=("<|IMG_PATCH|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "TILE_GLOBAL"))
    images = _image_processor("GotOcr2", size=SQUARE, min_patches=1, max_patches=1)
    processor = transformers.AyaVisionProcessor(images, tokenizer, PATCH_SIZE, IMAGE_SIZE, downsample_factor=2)
    image_token = tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>")
    return _victim(build_model("aya_vision", image_token_index=image_token), processor, "<image>")


def _kosmos2() -> Victim:
    processor = transformers.Kosmos2Processor(_clip(), family_tokenizer(), num_patch_index_tokens=1)
    # The processor puts 64 tokens in the place of an image
    return _victim(build_model("kosmos-2", latent_query_num=64, text_config={"layers": TEXT_LAYERS}), processor)


def _florence2() -> Victim:
    images = _image_processor("CLIP", size=SQUARE, do_center_crop=False)
    images.image_seq_length = (IMAGE_SIZE // PATCH_SIZE) ** 2 + 1
    processor = transformers.Florence2Processor(images, family_tokenizer(single="<s> $A </s>"))
    stage = {"depths": [1], "patch_size": [PATCH_SIZE], "patch_stride": [PATCH_SIZE], "patch_padding": [0]}
    stage |= {"patch_prenorm": [False], "embed_dim": [32], "num_heads": [2], "num_groups": [2]}
    return _victim(build_model("florence2", vision_config={**stage, "window_size": 4}), processor)


PROCESSED: dict[str, Callable[[], Victim]] = {
    "aya_vision": _aya_vision,
    "blip": _blip,
    "blip-2 (OPT)": partial(_ready, tiny_blip2_opt),
    "blip-2 (T5)": partial(_ready, tiny_blip2_t5),
    "florence2": _florence2,
    "gemma3": _gemma3,
    "git": _git,
    "idefics": _idefics,
    "idefics2": _idefics2,
    "idefics3": _idefics3,
    "instructblip": _instructblip,
    "kosmos-2": _kosmos2,
    "llava": partial(_llava, "llava"),
    "llava_next": _llava_next,
    "mllama": partial(_ready, tiny_mllama, "<image>", layers=4),  # two of them attend to the image
    "paligemma": _paligemma,
    "t5gemma2": _t5gemma2,
    "vipllava": partial(_llava, "vipllava", vision_feature_layers=[0, 1]),
}


def _qwen(name: str, processor: str, **settings: Any) -> Victim:
    """A family of Qwen's with its processor, which wants a video processor and with it torchvision."""
    tokenizer = family_tokenizer("<|image_pad|>", markers=("<|video_pad|>", "<|vision_start|>", "<|vision_end|>"))
    options = {"patch_size": PATCH_SIZE, "merge_size": 2, "size": AREA}
    videos = transformers.Qwen2VLVideoProcessor if processor == "Qwen2VL" else transformers.Qwen3VLVideoProcessor
    made = getattr(transformers, f"{processor}Processor")(
        _image_processor("Qwen2VL", **options), tokenizer, videos(**options)
    )
    return _victim(build_model(name, **settings), made, "<|image_pad|>")


def _pixtral(name: str, merge: int, **settings: Any) -> Victim:
    """Images of any size, with tokens that end lines and images."""
    tokenizer = family_tokenizer(markers=("[IMG_BREAK]", "[IMG_END]"))
    edge, patch = {"longest_edge": IMAGE_SIZE}, {"height": PATCH_SIZE, "width": PATCH_SIZE}
    images = _image_processor("Pixtral", size=edge, patch_size=patch)
    processor = transformers.PixtralProcessor(images, tokenizer, PATCH_SIZE, merge, image_token="<image>")
    return _victim(build_model(name, **settings), processor, "<image>")


NEED_TORCHVISION: dict[str, Callable[[], Victim]] = {
    "llava (Pixtral tower)": partial(
        _pixtral,
        "llava",
        merge=1,
        vision_config=transformers.PixtralVisionConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=PATCH_SIZE
        ),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    ),
    "mistral3": partial(_pixtral, "mistral3", merge=2),
    "qwen2_5_vl": partial(_qwen, "qwen2_5_vl", "Qwen2VL", text_config={"rope_parameters": ROPE}),
    "qwen2_vl": partial(_qwen, "qwen2_vl", "Qwen2VL", text_config={"rope_parameters": ROPE}),
    "qwen3_vl": partial(_qwen, "qwen3_vl", "Qwen3VL"),
}
