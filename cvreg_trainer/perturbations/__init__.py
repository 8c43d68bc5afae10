# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Ways to make the second view of an image.

An operation is a function `(region, image, rng) -> region` on numpy arrays, in a file of its own and with one entry in
[`OPERATIONS`]; [`PatchPerturbation`] draws the rectangle and the operation.
"""

from .mask import mask
from .noise import noise
from .patch import OPERATIONS, PatchPerturbation
from .shuffle import shuffle


__all__ = ["OPERATIONS", "PatchPerturbation", "mask", "noise", "shuffle"]
