# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The wheel, in an environment of its own: it has all that the demonstration needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_wheel_in_an_empty_environment_runs_the_demo(tmp_path: Path) -> None:
    # A checkout on the path would pass for the package
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = {"check": True, "cwd": tmp_path, "capture_output": True, "text": True, "env": environment}
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)], **run)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], **run)
    binaries = tmp_path / "venv" / "bin"
    constraints = ["-c", str(ROOT / "constraints-newest.txt")]
    subprocess.run([str(binaries / "pip"), "install", "--quiet", *constraints, f"{wheel}[all]"], **run)
    subprocess.run([str(binaries / "cvreg"), "demo", "--output_dir", "demo"], **run)
    runs = json.loads((tmp_path / "demo" / "results.json").read_text())["runs"]
    rates = {run["name"]: run["asr"] for run in runs}
    assert rates["undefended"] > 90 and rates["screened"] < 5
