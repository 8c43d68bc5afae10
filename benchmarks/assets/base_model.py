# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What `train_base_model.py` trains: a LLaVA, a BLIP-2 or a Flamingo of one to two million parameters, and its processor.

The three differ in how the language model meets the image: LLaVA's reads one projected token for each patch, BLIP-2's
reads what a Q-Former's queries gathered, Flamingo's looks at a resampler's latents through gated cross-attention. The
tower's size, the width and the words are the same. The bridges of the last two have one query for each patch, which is
what lets stage 1 teach them where to look.
"""

from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from cvreg_trainer.attacks import KEYWORD_TEMPLATES
from cvreg_trainer.data.prompts import Family
from cvreg_trainer.lab.scene_captions import IMAGE_SIZE, vocabulary, words
from cvreg_trainer.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, FlamingoProcessor


PATCH = 8
GRID = IMAGE_SIZE // PATCH
HIDDEN = 112
SPECIAL_TOKENS = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
# Words of other people's protocols: prompts used to test captioners, trigger words, words to plant.
EXTRA_TEXTS = [
    "system: user: assistant: output: a photo of question: answer: short long caption for this image, please!",
    "consider banana apple cat dog car bird boat an and it not I you am sorry cannot help with that",
]
CHAT_TEMPLATE = (
    "{% macro text(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}{% endmacro %}"
    "{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ text(message['content']) }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ text(message['content']) }}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def build_tokenizer(**special: Any) -> PreTrainedTokenizerFast:
    """A tokenizer over whole words, the same for all architectures."""
    texts = [*EXTRA_TEXTS, "The image depicts", *(template.format("banana") for template in KEYWORD_TEMPLATES)]
    known = sorted({word for text in texts for word in words(text)} | set(vocabulary()))
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(SPECIAL_TOKENS + known)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        **special,
    )


def _vision_settings() -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH,
    }


def _text_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _clip_images() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )


def _clip_features(tower: nn.Module, pixels: Tensor) -> Tensor:
    return tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]  # without the class token


class Llava:
    """CLIP's tower, a projector of two layers and a Llama."""

    name = "LLaVA"
    family: Family = "llava"
    seeing = "vision tower"
    stored = torch.float32

    def build(self) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
        """The model with random weights, and its processor."""
        tokenizer = build_tokenizer(extra_special_tokens={"image_token": "<image>"})
        processor = LlavaProcessor(
            image_processor=_clip_images(),
            tokenizer=tokenizer,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,  # CLIP's class token, which the strategy "default" drops again
            chat_template=CHAT_TEMPLATE,
        )
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(**_vision_settings(), projection_dim=HIDDEN),
            text_config=LlamaConfig(**_text_settings(tokenizer), intermediate_size=5 * HIDDEN // 2),
            image_token_index=processor.image_token_id,
            image_seq_length=GRID * GRID,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
        return LlavaForConditionalGeneration(config), processor

    def tower(self, model: Any) -> nn.Module:
        """The vision tower, which stage 2 leaves as it is."""
        return model.model.vision_tower

    def bridge(self, model: Any) -> list[nn.Parameter]:
        """What stage 1 trains besides the tower."""
        return []

    def features(self, model: Any, pixels: Tensor) -> list[Tensor]:
        """Features of the patches, each (B, GRID * GRID, HIDDEN), to put the questions of stage 1 to."""
        return [_clip_features(self.tower(model), pixels)]

    def text(self, processor: Any, row: dict[str, Any], with_response: bool) -> str:
        """What the language model reads of a row, up to where the response begins or with it."""
        [question] = row["prompt"]
        parts = [{"type": "image"}, {"type": "text", "text": question["content"]}]
        messages = [{"role": "user", "content": parts}, *(row["completion"] if with_response else [])]
        text = processor.apply_chat_template(messages, add_generation_prompt=not with_response)
        return text.replace("<image>", "<image>" * GRID**2)

    def pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) in the shape that the model reads."""
        return pixels


class Blip2(Llava):
    """BLIP-2's own tower, a Q-Former and an OPT."""

    name = "BLIP-2"
    family: Family = "blip2"
    seeing = "vision tower and Q-Former"
    stored = torch.bfloat16

    def build(self) -> tuple[Any, Any]:
        tokenizer = build_tokenizer()
        # As OPT's tokenizer does; the image's tokens stand before it
        backend = tokenizer.backend_tokenizer
        backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 2)])
        images = BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
        processor = Blip2Processor(images, tokenizer, num_query_tokens=GRID**2)
        text = OPTConfig(
            **_text_settings(tokenizer), ffn_dim=4 * HIDDEN, word_embed_proj_dim=HIDDEN, dropout=0.0
        ).to_dict()
        config = Blip2Config(
            vision_config={**_vision_settings(), "initializer_range": 0.02},
            qformer_config={
                "hidden_size": HIDDEN,
                "encoder_hidden_size": HIDDEN,
                "intermediate_size": 3 * HIDDEN,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "cross_attention_frequency": 1,
                "vocab_size": 1,  # of a text that only the Q-Former's own training would read
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            text_config=text,
            num_query_tokens=GRID**2,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_text_hidden_size=HIDDEN,
        )
        model = Blip2ForConditionalGeneration(config)
        nn.init.normal_(model.query_tokens)  # zeros as created: all queries would be one
        return model, processor

    def tower(self, model: Any) -> nn.Module:
        return model.vision_model

    def bridge(self, model: Any) -> list[nn.Parameter]:
        return [model.query_tokens, *model.qformer.parameters()]

    def features(self, model: Any, pixels: Tensor) -> list[Tensor]:
        seen = model.vision_model(pixels).last_hidden_state
        queries = model.query_tokens.expand(len(pixels), -1, -1)
        return [seen[:, 1:], model.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state]

    def text(self, processor: Any, row: dict[str, Any], with_response: bool) -> str:
        return "<image>" * GRID**2 + "<s>" + row["prompt"] + (row["completion"] if with_response else "")


class Flamingo(Llava):
    """CLIP's tower, a perceiver resampler, gated cross-attention and a Llama."""

    name = "Flamingo"
    family: Family = "openflamingo"
    seeing = "vision tower and resampler"
    stored = torch.bfloat16

    def build(self) -> tuple[Any, Any]:
        tokenizer = build_tokenizer()
        tokenizer.add_tokens(["<image>", "<|endofchunk|>", "<answer>"], special_tokens=True)
        config = FlamingoConfig(
            vision_config=CLIPVisionConfig(**_vision_settings(), projection_dim=HIDDEN),
            text_config=LlamaConfig(**_text_settings(tokenizer), intermediate_size=5 * HIDDEN // 2),
            cross_attn_every_n_layers=2,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            num_latents=GRID**2,
            num_perceiver_layers=2,
            num_cross_attention_heads=4,
            cross_attention_head_dim=HIDDEN // 4,
        )
        model = FlamingoForConditionalGeneration(config)
        for block in model.model.gated_cross_attention.values():
            # Nothing pretrained has to be shielded from their gradients here
            nn.init.ones_(block.attn_gate)
            nn.init.ones_(block.ff_gate)
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|endofchunk|>")
        return model, FlamingoProcessor(_clip_images(), tokenizer)

    def bridge(self, model: Any) -> list[nn.Parameter]:
        return list(model.model.perceiver.parameters())

    def features(self, model: Any, pixels: Tensor) -> list[Tensor]:
        seen = _clip_features(self.tower(model), pixels)
        return [seen, model.model.perceiver(seen[:, None])]

    def text(self, processor: Any, row: dict[str, Any], with_response: bool) -> str:
        return row["prompt"] + (row["completion"] if with_response else "")

    def pixels(self, pixels: Tensor) -> Tensor:
        return pixels[:, None, None]  # one image of one frame


ARCHITECTURES: dict[str, Llava] = {"llava": Llava(), "blip2": Blip2(), "flamingo": Flamingo()}


def round_weights(model: nn.Module) -> None:
    """Round float32 weights to what bfloat16 can hold, so that files in bfloat16 give the very model back."""
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data.to(torch.bfloat16))
