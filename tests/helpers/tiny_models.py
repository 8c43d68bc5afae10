# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Tiny random models of real architectures with real processors, built from configurations: nothing is downloaded.

One family per way a language model meets an image: LLaVA (image tokens in the sequence), BLIP-2 (query tokens, with a
decoder-only and an encoder-decoder language model), Qwen2-VL (patches flattened over the batch), Mllama and IDEFICS
(cross-attention). All share one word-level tokenizer, and all read the rows of `vision_rows`.
"""

import random
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from tiny_data import WORDS, caption, vision_dataset, vision_rows
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    T5Config,
    set_seed,
)


__all__ = [
    "Tiny",
    "TinyTensors",
    "tiny_blip2_opt",
    "tiny_blip2_t5",
    "tiny_idefics",
    "tiny_llava",
    "tiny_mllama",
    "tiny_qwen2_vl",
    "tiny_text_lm",
    "tiny_tokenizer",
    "vision_dataset",
    "vision_rows",
]

IMAGE_SIZE = 24
PATCH_SIZE = 8
NUM_QUERY_TOKENS = 4

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' : ' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] if message['content'] is string else message['content'][0]['text'] }}{{ ' </s> ' }}"
    "{% endgeneration %}"
    "{% elif message['content'] is string %}{{ message['content'] + ' ' }}"
    "{% else %}{% for part in message['content'] %}"
    "{{ 'IMAGE_TOKEN' if part['type'] == 'image' else part['text'] + ' ' }}"
    "{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)


class Tiny(NamedTuple):
    """A model and the processor (or tokenizer) that makes its inputs."""

    model: PreTrainedModel
    processor: ProcessorMixin | PreTrainedTokenizerFast


class TinyTensors(NamedTuple):
    """A model and a function `(batch_size, seed)` that makes its inputs, labels included, without a processor."""

    model: PreTrainedModel
    make_batch: Callable[..., dict[str, torch.Tensor]]


def tiny_tokenizer(image_token: str | None = None, single: str = "$A") -> PreTrainedTokenizerFast:
    """A lower-casing word-level tokenizer; ids 0 to 3 are pad, bos, eos, unk.

    It knows `image_token` where given; `single` says which special tokens it adds to a text.
    """
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single, special_tokens=[("<s>", 1), ("</s>", 2)])
    extra = {"extra_special_tokens": {"image_token": image_token}} if image_token else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE.replace("IMAGE_TOKEN", f"{image_token or ''} "),
        **extra,
    )


def _text_settings(tokenizer: PreTrainedTokenizerFast, layers: int, hidden_size: int = 16) -> dict[str, Any]:
    """The settings that all Llama-like language models share."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        # Ten times the usual range, so that the random model's predictions are far from uniform.
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _vision_settings(hidden_size: int = 16) -> dict[str, Any]:
    """The settings that all vision transformers here share."""
    return {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "initializer_range": 0.2,
    }


def tiny_text_lm(seed: int = 0, layers: int = 2) -> Tiny:
    """A Llama without images, and its tokenizer."""
    set_seed(seed)
    tokenizer = tiny_tokenizer()
    return Tiny(LlamaForCausalLM(LlamaConfig(**_text_settings(tokenizer, layers))), tokenizer)


def tiny_llava(seed: int = 0, layers: int = 4, hidden_size: int = 16) -> Tiny:
    """LLaVA: CLIP features of 9 patches take the place of the image tokens.

    A model that bitsandbytes is to load in 4 bits needs `hidden_size=64`: smaller layers fail on some CPUs.
    """
    set_seed(seed)
    tokenizer = tiny_tokenizer("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(projection_dim=16, **_vision_settings(hidden_size)),
        text_config=LlamaConfig(**_text_settings(tokenizer, layers, hidden_size)),
        image_token_index=tokenizer.image_token_id,
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the "default" strategy drops
        chat_template=tokenizer.chat_template,
    )
    return Tiny(LlavaForConditionalGeneration(config), processor)


def _tiny_blip2(text_config: OPTConfig | T5Config, tokenizer: PreTrainedTokenizerFast, seed: int) -> Tiny:
    set_seed(seed)
    processor = Blip2Processor(
        BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer,
        num_query_tokens=NUM_QUERY_TOKENS,
    )
    config = Blip2Config(
        vision_config=_vision_settings(),
        qformer_config={
            **{key: value for key, value in _vision_settings().items() if not key.endswith("_size")},
            "hidden_size": 16,
            "intermediate_size": 32,
            "vocab_size": 8,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=text_config.to_dict() | {"vocab_size": len(processor.tokenizer)},
        num_query_tokens=NUM_QUERY_TOKENS,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        image_text_hidden_size=16,
    )
    model = Blip2ForConditionalGeneration(config)
    # Zero as created: all queries would give the same feature.
    torch.nn.init.normal_(model.query_tokens)
    return Tiny(model, processor)


def tiny_blip2_opt(seed: int = 0, layers: int = 4) -> Tiny:
    """BLIP-2 with OPT: 4 query tokens stand before the text (and before BOS)."""
    tokenizer = tiny_tokenizer(single="<s> $A")
    settings = _text_settings(tokenizer, layers)
    text_config = OPTConfig(
        ffn_dim=settings.pop("intermediate_size"),
        word_embed_proj_dim=settings["hidden_size"],
        init_std=settings.pop("initializer_range"),
        dropout=0.0,
        **settings,
    )
    return _tiny_blip2(text_config, tokenizer, seed)


def tiny_blip2_t5(seed: int = 0, layers: int = 2) -> Tiny:
    """BLIP-2 with T5: query tokens and prompt go to the encoder, the completion to the decoder."""
    text_config = T5Config(
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=layers,
        num_heads=2,
        dropout_rate=0.0,
        initializer_factor=0.5,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    )
    return _tiny_blip2(text_config, tiny_tokenizer(single="$A </s>"), seed)


def tiny_mllama(seed: int = 0, layers: int = 4) -> Tiny:
    """Mllama: every second decoder layer attends to the image tiles.

    TRL's collator gives `cross_attention_mask` the prompt's length for prompt-completion rows, so use it with
    `style="messages"`.
    """
    set_seed(seed)
    tokenizer = tiny_tokenizer("<image>")
    vision = _vision_settings()
    vision["attention_heads"] = vision.pop("num_attention_heads")
    config = MllamaConfig(
        vision_config={
            **vision,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 32,
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        text_config={
            **_text_settings(tokenizer, layers),
            # The head has no row for the image token, which is the last one.
            "vocab_size": len(tokenizer) - 1,
            "cross_attention_layers": list(range(1, layers, 2)),
        },
        image_token_index=tokenizer.image_token_id,
    )
    processor = MllamaProcessor(
        MllamaImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, max_image_tiles=2),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )
    model = MllamaForConditionalGeneration(config)
    # Closed as created: the gates would hide the image.
    for name, parameter in model.named_parameters():
        if "gate" in name and "proj" not in name:
            torch.nn.init.constant_(parameter, 0.7)
    return Tiny(model, processor)


def tiny_qwen2_vl(seed: int = 0, layers: int = 4) -> TinyTensors:
    """Qwen2-VL: the patches of all images of a batch in one flat tensor (number of patches, 3 * 2 * 4 * 4).

    `make_batch(batch_size=2, seed=0, images_per_row=None)` makes ragged rows of `images_per_row[i]` images each
    (one by default) of 2x2 or 2x4 merged patches.
    """
    set_seed(seed)
    tokenizer = tiny_tokenizer("<image>")
    config = Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": 16,
            "num_heads": 2,
            "patch_size": 4,
            "mlp_ratio": 2,
        },
        text_config={
            **_text_settings(tokenizer, layers),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        },
        image_token_id=tokenizer.image_token_id,
        video_token_id=len(tokenizer),
        vision_start_token_id=len(tokenizer) + 1,
        vision_end_token_id=len(tokenizer) + 2,
    )

    def make_batch(
        batch_size: int = 2, seed: int = 0, images_per_row: Collection[int] | None = None
    ) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        rows, grids = [], []
        for number in images_per_row or [1] * batch_size:
            prompt: list[int] = []
            for _ in range(number):
                grid = [1, 4, int(torch.randint(2, 5, (), generator=generator)) // 2 * 2]
                grids.append(grid)
                # The colon parts neighbouring images: runs of image tokens are read as one image.
                prompt += [tokenizer.image_token_id] * (grid[1] * grid[2] // 4) + tokenizer.encode(":")
            rows.append((prompt + tokenizer.encode("describe this image"), _caption_ids(tokenizer, generator)))
        batch = _pad(rows, tokenizer.pad_token_id)
        batch["mm_token_type_ids"] = (batch["input_ids"] == tokenizer.image_token_id).long()
        if grids:
            batch["image_grid_thw"] = torch.tensor(grids)
            patches = int(batch["image_grid_thw"].prod(-1).sum())
            batch["pixel_values"] = torch.randn(patches, 3 * 2 * 4 * 4, generator=generator)
        return batch

    return TinyTensors(Qwen2VLForConditionalGeneration(config), make_batch)


def tiny_idefics(seed: int = 0, layers: int = 2) -> TinyTensors:
    """IDEFICS-1: gated cross-attention before every layer, and an output head with two extra, decoupled rows.

    `make_batch(batch_size=2, seed=0, images_per_row=None)` makes ragged rows; those with fewer images than the largest
    are filled up with images that `image_attention_mask` hides. The model's own loss fails on these labels
    (transformers 5.24 reckons without the extra rows): take it from the logits.
    """
    set_seed(seed)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<image>", "<fake_token_around_image>"], special_tokens=True)
    vision = _vision_settings()
    vision["embed_dim"] = vision.pop("hidden_size")
    settings = _text_settings(tokenizer, layers)
    settings.pop("num_key_value_heads")
    config = IdeficsConfig(
        **{**settings, "vocab_size": len(tokenizer) - 2},
        additional_vocab_size=2,
        alpha_initializer="ones",
        freeze_text_layers=False,
        freeze_vision_layers=False,
        vision_config=vision,
    )
    image_ids = tokenizer.convert_tokens_to_ids(["<fake_token_around_image>", "<image>", "<fake_token_around_image>"])

    def make_batch(
        batch_size: int = 2, seed: int = 0, images_per_row: Collection[int] | None = None
    ) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        numbers = list(images_per_row or [1] * batch_size)
        prompts = [image_ids * number + tokenizer.encode("describe this image") for number in numbers]
        batch = _pad([(prompt, _caption_ids(tokenizer, generator)) for prompt in prompts], tokenizer.pad_token_id)
        width = max([1, *numbers])
        batch["pixel_values"] = torch.randn(len(numbers), width, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        shown = torch.arange(width) < torch.tensor(numbers)[:, None]
        batch["image_attention_mask"] = batch["attention_mask"][:, :, None] * shown[:, None, :]
        return batch

    return TinyTensors(IdeficsForVisionText2Text(config), make_batch)


def _caption_ids(tokenizer: PreTrainedTokenizerFast, generator: torch.Generator) -> list[int]:
    """A caption of random length, with EOS."""
    seed = int(torch.randint(2**31, (), generator=generator))
    return tokenizer.encode(caption(random.Random(seed)) + " </s>")


def _pad(rows: list[tuple[list[int], list[int]]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Right-pads rows of (prompt, completion) ids; only the completions are labels."""
    length = max(len(prompt) + len(completion) for prompt, completion in rows)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for prompt, completion in rows:
        padding = length - len(prompt) - len(completion)
        batch["input_ids"].append(prompt + completion + [pad_token_id] * padding)
        batch["attention_mask"].append([1] * (length - padding) + [0] * padding)
        batch["labels"].append([-100] * len(prompt) + completion + [-100] * padding)
    return {key: torch.tensor(value) for key, value in batch.items()}
