# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The demo, at a fraction of its size: what it writes, that a seed fixes it, and its errors."""

import json
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText

from cvreg_trainer.cli import main
from cvreg_trainer.commands.demo import run_demo
from cvreg_trainer.lab.experiment import Experiment


SMALL = {"train_rows": 32, "test_rows": 8, "num_train_epochs": 1, "poison_rate": 0.25}
SCORES = {"clean_bleu4", "clean_cider", "triggered_bleu4", "triggered_cider", "asr", "false_alarm_rate"}


@pytest.mark.slow
def test_demo_writes_results_picture_and_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lambdas = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}
    settings = Experiment(3, config=lambdas, **SMALL)
    report = run_demo(settings, tmp_path / "demo")
    # Pairs become lists in JSON
    assert json.loads((tmp_path / "demo" / "results.json").read_text()) == json.loads(json.dumps(report))
    names = [run["name"] for run in report["runs"]]
    assert names == ["undefended", "paper", "screened"]
    undefended, paper, screened = report["runs"]
    for run in report["runs"]:
        assert set(run) >= SCORES and run["steps"] == 4
        assert run["seconds_per_step"] > 0 and run["peak_memory_mib"] > 100
    assert "patch_loss" in paper["losses"][0] and "patch_loss" not in undefended["losses"][0]
    assert screened["audit_auroc"] is not None and "patch_loss" not in screened["losses"][0]
    assert (tmp_path / "demo" / "screened" / "audit" / "audit.html").exists()
    assert report["command"].endswith("--seed 3") and report["environment"]["torch"]
    assert Image.open(tmp_path / "demo" / "examples.png").width > 800
    for name in names:
        AutoModelForImageTextToText.from_pretrained(tmp_path / "demo" / name)
    said = capsys.readouterr().out
    assert "screened" in said and f"on one page: {tmp_path / 'demo' / 'report.html'}" in " ".join(said.split())
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "Options that differ" in page and "lambda_discrepancy" in page and page.count("data:image/jpeg") == 16
    assert 'href="screened/audit/audit.html"' in page

    again = run_demo(settings, tmp_path / "again")
    for run, first in zip(again["runs"], report["runs"], strict=True):
        assert {key: run[key] for key in SCORES} == {key: first[key] for key in SCORES}
        assert run["losses"][-1]["loss"] == first["losses"][-1]["loss"]


def test_bad_lambda_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output_dir", str(tmp_path), "--lambda_patch", "-1"]) == 2
    assert capsys.readouterr().err == "cvreg demo: --lambda_patch must be 0 or more, got -1.0\n"


def test_output_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--output_dir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("cvreg demo: ")


def test_version_and_missing_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0 and "cvreg_trainer" in capsys.readouterr().out
    assert main([]) == 2
    assert "fine-tune on poisoned captions without and with defences" in " ".join(capsys.readouterr().err.split())
