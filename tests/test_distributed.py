# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Two processes that share a global batch train the same weights as one process that has it all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


HERE = Path(__file__).parent


def run(folder: Path, processes: int, batch_size: int, accumulation_steps: int) -> tuple[dict[str, torch.Tensor], Any]:
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(HERE / "helpers" / "distributed_run.py"), str(folder), str(batch_size), str(accumulation_steps)]
    paths = [str(HERE / "helpers"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    return load_file(folder / "weights.safetensors"), json.loads((folder / "logs.json").read_text())


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    alone, logs_alone = run(tmp_path / "one", processes=1, batch_size=8, accumulation_steps=1)
    together, logs = run(tmp_path / "two", processes=2, batch_size=2, accumulation_steps=2)
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-5, atol=1e-6, msg=name)
    for ours, expected in zip(logs, logs_alone, strict=True):
        for key in ("loss", "task_loss", "patch_loss", "discrepancy_loss", "entropy_loss", "num_tokens"):
            assert ours[key] == pytest.approx(expected[key], rel=1e-5), key
