# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The small vision-language model that comes with the package, read from the package's own files.

`benchmarks/assets/train_base_model.py` made it; see `base_model/MODEL_CARD.md` for how, and for its quality.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

BASE_MODEL_PATH = Path(__file__).parent / "base_model"


def load_base_model() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Load the built-in captioner; nothing is downloaded.

    Returns:
        `tuple[LlavaForConditionalGeneration, LlavaProcessor]`: the model in float32 and evaluation mode, and its
        processor. An image becomes 36 tokens; words outside the vocabulary become `<unk>`.

    Example:

    ```python
    >>> from cvreg_trainer.lab import load_base_model
    >>> model, processor = load_base_model()
    ```
    """
    import torch
    from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration, LlavaProcessor

    model = LlavaForConditionalGeneration.from_pretrained(BASE_MODEL_PATH, dtype=torch.float32, local_files_only=True)
    # The PIL image processor is named outright: with torchvision installed, the auto class would pick another one, and
    # the two resize differently.
    processor = LlavaProcessor.from_pretrained(BASE_MODEL_PATH, local_files_only=True)
    processor.image_processor = CLIPImageProcessorPil.from_pretrained(BASE_MODEL_PATH, local_files_only=True)
    return model.eval(), processor
