# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Triggers, one file each: what tells a backdoored model to do the attacker's will."""

from .add_sent import AddSent
from .badnets import BadNets
from .badnets_mm import BadNetsMM
from .badnets_mt import BadNetsMT
from .badnets_t import BadNetsT
from .blended import Blended
from .dual_key import DualKey
from .ftrojan import FTrojan
from .input_aware import InputAware
from .input_aware_training import train_input_aware
from .low_frequency import LowFrequency
from .no_trigger import NoTrigger
from .optimized_patch import OptimizedPatch
from .patch_optimization import feature_shift_loss, isolation_clustering_loss, optimize_patch
from .semantic import Semantic
from .sig import Sig
from .tower import tower_features
from .wanet import WaNet


__all__ = [
    "AddSent",
    "BadNets",
    "BadNetsMM",
    "BadNetsMT",
    "BadNetsT",
    "Blended",
    "DualKey",
    "FTrojan",
    "InputAware",
    "LowFrequency",
    "NoTrigger",
    "OptimizedPatch",
    "Semantic",
    "Sig",
    "WaNet",
    "feature_shift_loss",
    "isolation_clustering_loss",
    "optimize_patch",
    "tower_features",
    "train_input_aware",
]
