# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Random weights that need not be stored: each is a function of its name and shape alone.

Notable: `RandomState` draws the same numbers in every version of NumPy, so what the reference implementations computed
with these weights (golden/*.safetensors) can be compared with what we compute from them years later.
"""

import zlib

import numpy as np
import torch


def published_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A float32 weight in the range of a trained model's: gates open, norms near the identity, the rest normal."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if "gate" in name:
        noise = 0.5 + 0.1 * noise
    elif len(shape) == 1:
        noise = 0.1 * noise + ("norm" in name or "ln_" in name or "_ln" in name or "layrnorm" in name) * (
            not name.endswith("bias")
        )
    elif "embed" in name or "wte" in name:
        # Small, so that what is predicted hangs on the layers and the image, not on the last token
        noise = 0.3 * noise
    elif "latents" not in name:
        noise = 1.5 * noise / np.sqrt(np.prod(shape[1:]))
    return torch.tensor(noise, dtype=torch.float32)
