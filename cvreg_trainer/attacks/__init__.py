# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Backdoor attacks: a trigger is a callable on PIL images, a payload what it makes the model say, and `poison_dataset`
plants both in a data set."""

from collections.abc import Callable

from .payloads import (
    KEYWORD_TEMPLATES,
    CleanLabel,
    ConceptFlood,
    Injection,
    Keyword,
    OtherAnswers,
    Payload,
    Refusal,
    RelationSwap,
    SeveralTargets,
    Substitution,
    swap_relation,
    target_response,
)
from .poison import apply_trigger, poison_dataset
from .protocols import Attack, CoveredAttack, SelectiveAttack, TextAttack, TwoPartAttack, VariedAttack
from .record import write_poison_record
from .triggers import (
    AddSent,
    BadNets,
    BadNetsMM,
    BadNetsMT,
    BadNetsT,
    Blended,
    DualKey,
    FTrojan,
    InputAware,
    LowFrequency,
    NoTrigger,
    OptimizedPatch,
    Semantic,
    Sig,
    WaNet,
    feature_shift_loss,
    isolation_clustering_loss,
    optimize_patch,
    tower_features,
    train_input_aware,
)


# Triggers by their names on the command line, those of the paper first; all arguments have defaults
ATTACKS: dict[str, Callable[..., Attack]] = {
    "badnets": BadNets,
    "blended": Blended,
    "low_frequency": LowFrequency,
    "wanet": WaNet,
    "input_aware": InputAware,
    "dual_key": DualKey,
    "sig": Sig,
    "ftrojan": FTrojan,
    "optimized_patch": OptimizedPatch,
    "badnets_t": BadNetsT,
    "badnets_mt": BadNetsMT,
    "add_sent": AddSent,
    "badnets_mm": BadNetsMM,
    "semantic": Semantic,
    "no_trigger": NoTrigger,
}
# Payloads by theirs. CleanLabel is not among them: it needs a model and pictures, from Python.
PAYLOADS: dict[str, type[Payload]] = {
    "keyword": Keyword,
    "refusal": Refusal,
    "injection": Injection,
    "substitution": Substitution,
    "relation_swap": RelationSwap,
    "flood": ConceptFlood,
    "answers": OtherAnswers,
    "several": SeveralTargets,
}

__all__ = [
    "ATTACKS",
    "KEYWORD_TEMPLATES",
    "PAYLOADS",
    "AddSent",
    "Attack",
    "BadNets",
    "BadNetsMM",
    "BadNetsMT",
    "BadNetsT",
    "Blended",
    "CleanLabel",
    "ConceptFlood",
    "CoveredAttack",
    "DualKey",
    "FTrojan",
    "Injection",
    "InputAware",
    "Keyword",
    "LowFrequency",
    "NoTrigger",
    "OptimizedPatch",
    "OtherAnswers",
    "Payload",
    "Refusal",
    "RelationSwap",
    "SelectiveAttack",
    "Semantic",
    "SeveralTargets",
    "Sig",
    "Substitution",
    "TextAttack",
    "TwoPartAttack",
    "VariedAttack",
    "WaNet",
    "apply_trigger",
    "feature_shift_loss",
    "isolation_clustering_loss",
    "optimize_patch",
    "poison_dataset",
    "swap_relation",
    "target_response",
    "tower_features",
    "train_input_aware",
    "write_poison_record",
]
