# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Payloads, one file each: what a backdoored model says, independent of the trigger that makes it say so."""

from .answers import OtherAnswers
from .base import Payload
from .clean_label import CleanLabel
from .flood import ConceptFlood
from .injection import Injection
from .keyword import KEYWORD_TEMPLATES, Keyword, target_response
from .refusal import Refusal
from .relation_swap import RelationSwap, swap_relation
from .several import SeveralTargets
from .substitution import Substitution


__all__ = [
    "KEYWORD_TEMPLATES",
    "CleanLabel",
    "ConceptFlood",
    "Injection",
    "Keyword",
    "OtherAnswers",
    "Payload",
    "Refusal",
    "RelationSwap",
    "SeveralTargets",
    "Substitution",
    "swap_relation",
    "target_response",
]
