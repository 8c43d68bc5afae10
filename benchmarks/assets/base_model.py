# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What `train_base_model.py` trains: the built-in model, its processor, and the questions put to its vision tower."""

import torch.nn.functional as F
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from cvreg_trainer.attacks import KEYWORD_TEMPLATES
from cvreg_trainer.lab.scene_captions import (
    COLORS,
    DISTORTIONS,
    IMAGE_SIZE,
    SHAPES,
    TEXTURES,
    Scene,
    vocabulary,
    words,
)


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


def build_processor() -> LlavaProcessor:
    """Tokenizer over whole words, CLIP's pixel normalisation, LLaVA's image tokens."""
    texts = [*EXTRA_TEXTS, "The image depicts", *(template.format("banana") for template in KEYWORD_TEMPLATES)]
    known = sorted({word for text in texts for word in words(text)} | set(vocabulary()))
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(SPECIAL_TOKENS + known)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the strategy "default" drops again
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """A LLaVA of about a million parameters with random weights."""
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        projection_dim=HIDDEN,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=5 * HIDDEN // 2,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        image_seq_length=GRID * GRID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


class VisionHeads(nn.Module):
    """What the vision tower is asked during its own stage; thrown away afterwards."""

    SHAPES = [shape for shapes in SHAPES.values() for shape in shapes]
    COLORS = [color for colors in COLORS.values() for color in colors]
    TEXTURES = [texture for textures in TEXTURES.values() for texture in textures]

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        self.shape = nn.Linear(HIDDEN, len(self.SHAPES) + 1)
        self.color = nn.Linear(HIDDEN, len(self.COLORS) + 1)
        self.texture = nn.Linear(HIDDEN, len(self.TEXTURES))
        self.distortion = nn.Linear(HIDDEN, len(DISTORTIONS) + 1)
        self.pixels = nn.Linear(HIDDEN, 3 * PATCH * PATCH)

    @classmethod
    def labels(cls, scene: Scene) -> list[int]:
        """Object and colour of each patch (index, or the number of classes for none), texture, distortion."""
        shapes, colors = [], []
        for row in range(GRID):
            for column in range(GRID):
                x, y = (column + 0.5) * PATCH, (row + 0.5) * PATCH
                gap, item = min(
                    ((max(abs(o.x - x), abs(o.y - y)) - o.radius, o) for o in scene.objects), key=lambda pair: pair[0]
                )
                shapes.append(cls.SHAPES.index(item.shape) if gap < 2 else len(cls.SHAPES))
                colors.append(cls.COLORS.index(item.color) if gap < 2 else len(cls.COLORS))
        distortion = DISTORTIONS.index(scene.distortion) if scene.distortion else len(DISTORTIONS)
        return [*shapes, *colors, cls.TEXTURES.index(scene.texture), distortion]

    def forward(self, features: Tensor, pixels: Tensor, labels: Tensor) -> Tensor:
        """`features` (B, P, D) of the patches, `pixels` (B, 3, H, W), `labels` (B, 2P + 2)."""
        patches = GRID * GRID
        pooled, features = self.norm(features.mean(1)), self.norm(features)
        wanted = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2)  # (B, P, 3 * PATCH * PATCH)
        return (
            F.cross_entropy(self.shape(features).transpose(1, 2), labels[:, :patches])
            + F.cross_entropy(self.color(features).transpose(1, 2), labels[:, patches : 2 * patches])
            + 0.3 * F.cross_entropy(self.texture(pooled), labels[:, -2])
            + 0.5 * F.cross_entropy(self.distortion(pooled), labels[:, -1])
            + 4.0 * F.mse_loss(self.pixels(features), wanted)
        )
