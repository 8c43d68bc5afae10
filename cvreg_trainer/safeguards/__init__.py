# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Checks against what can waste hours of training: parts that never train, broken checkpoints, weights gone to NaN."""
