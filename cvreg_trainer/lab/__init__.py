# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What it takes to judge a defence, and no training needs: drawn scenes, a small model, rival defences, an experiment.

Notable: nothing outside this folder, `report` and `commands` imports it.
"""

from .experiment import Experiment
from .pretrained import load_base_model
from .scenes import make_scenes
from .tiny_flamingo import make_tiny_flamingo


__all__ = ["Experiment", "load_base_model", "make_scenes", "make_tiny_flamingo"]
