# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Captions from a model, and what they score on clean and triggered images."""

from .generation import generate_captions
from .scores import CaptionScores, evaluate_captions, score_captions


__all__ = ["CaptionScores", "evaluate_captions", "generate_captions", "score_captions"]
