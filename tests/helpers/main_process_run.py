# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Run by tests/screening/test_main_process.py under torchrun: each process writes what it was told."""

import json
import sys
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from cvreg_trainer.screening.main_process import on_main_process


def main(folder: str) -> None:
    accelerator, calls = Accelerator(cpu=True), []

    def make() -> tuple[int, np.ndarray]:
        calls.append(1)
        return accelerator.process_index, np.array([2 + len(calls), 1, 2])

    def fail() -> None:
        calls.append(1)
        raise KeyError("row 7")

    told = [on_main_process(accelerator, make) for _ in range(2)]
    error = "none"
    try:
        on_main_process(accelerator, fail)
    except (KeyError, RuntimeError) as raised:
        error = repr(raised)
    result = {"told": [[rank, rows.tolist()] for rank, rows in told], "calls": len(calls), "error": error}
    Path(folder, f"{accelerator.process_index}.json").write_text(json.dumps(result))
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main(sys.argv[1])
