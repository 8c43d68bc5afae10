# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Backdoor attacks: a trigger is a callable on PIL images, `poison_dataset` plants it in a data set."""

from collections.abc import Callable

from .badnets import BadNets
from .blended import Blended
from .dual_key import DualKey
from .dual_key_patch import optimize_patch
from .input_aware import InputAware
from .input_aware_training import train_input_aware
from .low_frequency import LowFrequency
from .poison import KEYWORD_TEMPLATES, apply_trigger, poison_dataset, target_response
from .protocols import Attack, CoveredAttack, TextAttack
from .record import write_poison_record
from .wanet import WaNet


# The attacks of the paper by their names on the command line; all arguments have defaults
ATTACKS: dict[str, Callable[..., Attack]] = {
    "badnets": BadNets,
    "blended": Blended,
    "low_frequency": LowFrequency,
    "wanet": WaNet,
    "input_aware": InputAware,
    "dual_key": DualKey,
}
__all__ = [
    "ATTACKS",
    "KEYWORD_TEMPLATES",
    "Attack",
    "BadNets",
    "Blended",
    "CoveredAttack",
    "DualKey",
    "InputAware",
    "LowFrequency",
    "TextAttack",
    "WaNet",
    "apply_trigger",
    "optimize_patch",
    "poison_dataset",
    "target_response",
    "train_input_aware",
    "write_poison_record",
]
