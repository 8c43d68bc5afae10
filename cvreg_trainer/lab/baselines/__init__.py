# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The defences to compare with, one file each; each names its source and its departures from it."""

from .byorn import DataCollatorForBootstrap, MovingAverage
from .detectors import DETECTORS, Detector
from .entropy_filter import entropy_scores
from .fine_pruning import fine_prune
from .reading import Detection, Look, Reading, read_rows
from .response_filter import response_scores
from .run import BASELINES, run_baseline
from .scoring import ResponseStatistics, flag_share, response_statistics
from .strip import false_rejection_threshold, strip_scores
from .strong_augmentation import DataCollatorForAugmentation, strong_augmentation


__all__ = [
    "BASELINES",
    "DETECTORS",
    "DataCollatorForAugmentation",
    "DataCollatorForBootstrap",
    "Detection",
    "Detector",
    "Look",
    "MovingAverage",
    "Reading",
    "ResponseStatistics",
    "entropy_scores",
    "false_rejection_threshold",
    "fine_prune",
    "flag_share",
    "read_rows",
    "response_scores",
    "response_statistics",
    "run_baseline",
    "strip_scores",
    "strong_augmentation",
]
