# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Data collators: the second view, screening, and the batches that TRL's collator cannot make."""

from .cross_view import DataCollatorForCrossView
from .encoder_decoder import DataCollatorForEncoderDecoder
from .prompt_completion import DataCollatorForPromptCompletion


__all__ = ["DataCollatorForCrossView", "DataCollatorForEncoderDecoder", "DataCollatorForPromptCompletion"]
