# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The small vision-language models that come with the package, read from the package's own files.

`benchmarks/assets/train_base_model.py` made them; the `MODEL_CARD.md` in each folder says how, and how good they are.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from ..shorten import shorten


if TYPE_CHECKING:
    from torch import nn
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    from ..data.prompts import Family

BASE_MODEL_PATH = Path(__file__).parent / "base_model"
_OTHERS_PATH = Path(__file__).parent / "base_models"


class BaseModel(NamedTuple):
    """A built-in model: its folder, the family whose prompts it reads, and the name of its vision tower."""

    path: Path
    family: Family
    tower: str


# The LLaVA is where the package has always had it
BASE_MODELS: dict[str, BaseModel] = {
    "llava": BaseModel(BASE_MODEL_PATH, "llava", "model.vision_tower"),
    "blip2": BaseModel(_OTHERS_PATH / "blip2", "blip2", "vision_model"),
    "flamingo": BaseModel(_OTHERS_PATH / "flamingo", "openflamingo", "model.vision_tower"),
}


@overload
def load_base_model(
    architecture: Literal["llava"] = "llava", new_words: Collection[str] = ()
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]: ...
@overload
def load_base_model(architecture: str, new_words: Collection[str] = ()) -> tuple[Any, Any]: ...
def load_base_model(architecture: str = "llava", new_words: Collection[str] = ()) -> tuple[Any, Any]:
    """Load a built-in captioner; nothing is downloaded.

    Args:
        architecture (`str`, *optional*, defaults to `"llava"`):
            `"llava"`, `"blip2"` (Q-Former and OPT) or `"flamingo"` (resampler and gated cross-attention), of one to
            two million parameters, all trained on the same scenes.
        new_words (`Collection[str]`, *optional*):
            Lower-case words to add to the vocabulary, with the mean of the known words as their embedding.

    Returns:
        `tuple[PreTrainedModel, ProcessorMixin]`: the model in float32 and evaluation mode, and its processor. An image
        becomes 36 tokens, queries or latents; words outside the vocabulary become `<unk>`.

    Raises:
        `ValueError`: if the name is unknown.

    Example:

    ```python
    >>> from cvreg_trainer.lab import load_base_model
    >>> model, processor = load_base_model()
    ```
    """
    import torch
    from transformers import (
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessorPil,
        CLIPImageProcessorPil,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from ..models.flamingo import FlamingoForConditionalGeneration, FlamingoProcessor

    # The PIL image processors are named outright: with torchvision installed, the auto class would pick another one,
    # and the two resize differently.
    classes: dict[str, tuple[Any, Any, Any]] = {
        "llava": (LlavaForConditionalGeneration, LlavaProcessor, CLIPImageProcessorPil),
        "blip2": (Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil),
        "flamingo": (FlamingoForConditionalGeneration, FlamingoProcessor, CLIPImageProcessorPil),
    }
    if architecture not in BASE_MODELS:
        raise ValueError(f"architecture={shorten(architecture)} is unknown; use one of {', '.join(BASE_MODELS)}.")
    model_class, processor_class, images_class = classes[architecture]
    path = BASE_MODELS[architecture].path
    model = model_class.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    processor = processor_class.from_pretrained(path, local_files_only=True)
    processor.image_processor = images_class.from_pretrained(path, local_files_only=True)
    _add_words(model, processor.tokenizer, new_words)
    return model.eval(), processor


def vision_tower(model: Any, architecture: str) -> nn.Module:
    """The vision tower of a built-in model."""
    return model.get_submodule(BASE_MODELS[architecture].tower)


def _add_words(model: Any, tokenizer: Any, new_words: Collection[str]) -> None:
    from transformers import AddedToken

    unknown = sorted(set(new_words) - set(tokenizer.get_vocab()))
    if not unknown:
        return
    old = len(tokenizer)
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in unknown])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        embeddings.weight.data[old:] = embeddings.weight.data[:old].mean(0)
