# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The three terms that the defence adds to the task loss, one file each (paper, equations 12, 14 and 16), and the
objective that adds them up (equation 17).

Each is a sum divided by a count that the caller gives: the count of the whole global batch, so that the terms of its
micro-batches add up to the same number however the batch is cut. An empty sum is a differentiable zero.
"""

from .discrepancy import discrepancy_loss
from .entropy import entropy_loss
from .patch import patch_loss


__all__ = ["discrepancy_loss", "entropy_loss", "patch_loss"]
