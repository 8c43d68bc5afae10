# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Caption metrics as `evaluate.Metric` classes that need neither the hub nor Java, on the scale papers print."""

from .attack_success_rate import AttackSuccessRate
from .bleu import Bleu4
from .cider import Cider
from .tokenizer import tokenize_caption
from .vqa_accuracy import VqaAccuracy, normalize_answer


__all__ = ["AttackSuccessRate", "Bleu4", "Cider", "VqaAccuracy", "normalize_answer", "tokenize_caption"]
