# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Two processes that share a global batch train the same weights as one process that has it all, and cut the same rows:
under both kinds of gradient checkpointing, where one of them has no row with an image, and on every engine for which
there is a configuration in examples/accelerate.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_run
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText


HERE = Path(__file__).parent
CONFIGURATIONS = HERE.parent / "examples" / "accelerate"
ENGINES = ["single_gpu", "multi_gpu", "fsdp2", "zero2", "zero3"]


def launch(launcher: list[str], *arguments: str, **variables: str) -> None:
    """Run the helper in processes of their own, which end in any case: two that wait for each other would not."""
    paths = [str(HERE / "helpers"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", *launcher, str(HERE / "helpers" / "distributed_run.py"), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-6000:]


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], Any, Any]:
    """The saved weights, the logs, and what screening said about each row."""
    adapter = folder / "saved" / "adapter_model.safetensors"
    # As a user would load it: engines name the weights in a file differently
    weights = load_file(adapter) if adapter.exists() else reloaded(folder / "saved")
    return weights, *(json.loads((folder / f"{name}.json").read_text()) for name in ("logs", "rows"))


def reloaded(folder: Path) -> dict[str, torch.Tensor]:
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model.state_dict()


def check_equal(folder: Path, expected_folder: Path, run: distributed_run.Run, is_sharded: bool = False) -> None:
    (weights, logs, rows), (expected, expected_logs, expected_rows) = outcome(folder), outcome(expected_folder)
    assert weights.keys() == expected.keys()
    for key, weight in expected.items():
        torch.testing.assert_close(weights[key], weight, rtol=1e-5, atol=1e-6, msg=key)
    assert len(logs) == len(expected_logs) == run.max_steps
    # SFTTrainer counts the tokens of the row that `DataCollatorWithAnImage` adds
    names = ["loss", *([] if is_sharded else ["num_tokens"])]
    if run.lambda_patch:
        names += ["task_loss", "patch_loss", "discrepancy_loss", "entropy_loss"]
    for ours, theirs in zip(logs, expected_logs, strict=True):
        for name in names:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert all(log["patch_loss"] > 0 for log in logs if run.lambda_patch)
    for ours, theirs in zip(rows, expected_rows, strict=True):
        assert ours[1:] == theirs[1:] and ours[0] == pytest.approx(theirs[0], rel=1e-2, abs=1e-2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What every training of `distributed_run.RUNS` left: in this process, and in two of their own."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    distributed_run.main(alone, 8, 1, distributed_run.RUNS)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch(torchrun, str(together), "2", "2", "fast")
    return alone, together


@pytest.mark.parametrize("name", distributed_run.RUNS)
def test_two_ranks_equal_one(name: str, folders: tuple[Path, Path]) -> None:
    alone, together = folders
    check_equal(together / name, alone / name, distributed_run.RUNS[name])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    distributed_run.main(folder, 8, 1, distributed_run.ENGINE_RUNS)
    return folder


def on_cpus(engine: str, folder: Path) -> Path:
    """A configuration as it is shipped, for two processes without a GPU and in float32."""
    settings = yaml.safe_load((CONFIGURATIONS / f"{engine}.yaml").read_text())
    settings |= {"mixed_precision": "no", "num_processes": min(2, settings["num_processes"]), "use_cpu": True}
    if settings["distributed_type"] in ("FSDP", "DEEPSPEED"):
        settings["use_cpu"] = False
    path = folder / f"{engine}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_trains_what_one_process_does(engine: str, tmp_path: Path, alone: Path) -> None:
    variables = {}
    is_sharded = engine not in ("single_gpu", "multi_gpu")
    if engine.startswith("zero"):
        if importlib.util.find_spec("deepspeed") is None:
            pytest.skip("deepspeed is not installed")
        variables = {"DS_ACCELERATOR": "cpu", "DS_BUILD_OPS": "0"}
    if is_sharded:
        variables["TAKE_CPUS_FOR_GPUS"] = "1"
    size = ("4", "2") if engine == "single_gpu" else ("2", "2")
    config = on_cpus(engine, tmp_path)
    launch(
        ["accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"],
        str(tmp_path),
        *size,
        "engines",
        **variables,
    )
    for name, run in distributed_run.ENGINE_RUNS.items():
        check_equal(tmp_path / name, alone / name, run, is_sharded)
        for step in (2, 4) if run.resumes else ():
            # From its own checkpoint: exactly what the engine made without the interruption
            check_resumed(tmp_path / f"{name}, from {step}", tmp_path / name, step)
    for name, run in distributed_run.UNEVEN.items():
        _, logs, rows = outcome(tmp_path / name)
        assert len(logs) == run.max_steps and len(rows) == run.num_rows
        assert all(torch.isfinite(torch.tensor(log["loss"])) for log in logs)


def check_resumed(folder: Path, expected_folder: Path, step: int) -> None:
    (weights, logs, rows), (expected, expected_logs, expected_rows) = outcome(folder), outcome(expected_folder)
    for key, weight in expected.items():
        torch.testing.assert_close(weights[key], weight, rtol=1e-6, atol=1e-7, msg=key)
    assert [log["loss"] for log in logs] == pytest.approx([log["loss"] for log in expected_logs], rel=1e-6)
    assert [row[1:] for row in rows] == [row[1:] for row in expected_rows]
