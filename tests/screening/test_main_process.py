# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the main process works out reaches two real processes, and so does its failure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import Accelerator

from cvreg_trainer.screening.main_process import on_main_process


HERE = Path(__file__).parents[1]


def test_one_process_calls_the_function_itself() -> None:
    result = object()
    assert on_main_process(Accelerator(cpu=True), lambda: result) is result


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(HERE / "helpers" / "main_process_run.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-4000:]
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert main["told"] == other["told"] == [[0, [3, 1, 2]], [0, [4, 1, 2]]]
    assert main["calls"] == 3 and other["calls"] == 0
    assert main["error"] == "KeyError('row 7')"
    assert other["error"] == "RuntimeError(\"The screening failed on the main process: KeyError: 'row 7'\")"
