# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Two processes that share a global batch train the same weights as one process that has it all: under both kinds of
gradient checkpointing, and where one of them has no row with an image.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_run
import pytest
import torch
from safetensors.torch import load_file


HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What every training of `distributed_run.RUNS` left: in this process, and in two of their own."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    distributed_run.main(alone, batch_size=8, accumulation_steps=1)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(HERE / "helpers" / "distributed_run.py"), str(together), "2", "2"]
    paths = [str(HERE / "helpers"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    # Processes that wait for each other come to an end too
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-4000:]
    return alone, together


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], Any]:
    return load_file(folder / "weights.safetensors"), json.loads((folder / "logs.json").read_text())


@pytest.mark.parametrize("name", distributed_run.RUNS)
def test_two_ranks_equal_one(name: str, folders: tuple[Path, Path]) -> None:
    (alone, logs_alone), (together, logs) = (outcome(folder / name) for folder in folders)
    for key, weight in alone.items():
        torch.testing.assert_close(together[key], weight, rtol=1e-5, atol=1e-6, msg=key)
    assert len(logs) == 3 and all(log["patch_loss"] > 0 for log in logs)
    for ours, expected in zip(logs, logs_alone, strict=True):
        for key in ("loss", "task_loss", "patch_loss", "discrepancy_loss", "entropy_loss", "num_tokens"):
            assert ours[key] == pytest.approx(expected[key], rel=1e-5), key
