# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg report`: folders with and without a name, and its errors."""

from pathlib import Path

import pytest
from run_folders import make_run

from cvreg_trainer.cli import main


def test_runs_are_named_by_their_folder_or_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "seed=2")
    page = tmp_path / "new" / "report.html"
    assert main(["report", f"plain={first}", str(second), "--output", str(page)]) == 0
    assert capsys.readouterr().out == f"The report is in {page}\n"
    assert "Runs: plain, seed=2" in page.read_text()


def test_what_cannot_be_reported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "absent"), "--output", str(tmp_path / "report.html")]) == 2
    assert capsys.readouterr().err == f"cvreg report: {tmp_path / 'absent'} is not a folder.\n"
    run = str(make_run(tmp_path / "run"))
    assert main(["report", run, run, "--output", str(tmp_path / "report.html")]) == 2
    assert "names of their own, got run, run" in capsys.readouterr().err
