# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What holds for every test: no network, one thread, fixed seeds."""

import gc
import os
import random
from collections.abc import Iterator


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402


torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Spares the garbage collector, which every training calls, what all the imports have made for good."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seeds Python, NumPy and torch, so that a test gives the same result alone and among others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def flags_sentence() -> Iterator[None]:
    """A screening that flags the rows with one response, where the rows are too few for the one of the package."""
    from screening_stand_in import SENTENCE, flagging

    with flagging(SENTENCE):
        yield
