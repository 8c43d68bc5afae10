# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Save and restore the global RNG state."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore the states of `random`, `numpy.random` and torch's generators (CPU, and the GPU in use) on exit."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
