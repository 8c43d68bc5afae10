# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Trainings with enough rows to look for causes: the three looks, and what the cut must not depend on."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from screening_checks import Taken
from screening_run import make_trainer, planted_rows

from cvreg_trainer.data.rows import row_digest
from cvreg_trainer.screening import looks as looks_module
from cvreg_trainer.screening import training_screen
from cvreg_trainer.screening.passes.collator import row_id
from cvreg_trainer.screening.passes.row_features import NUM_FEATURES, row_features
from cvreg_trainer.screening.passes.scoring_pass import score_rows
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.screen import Screen


NUM_ROWS = RULE.enough_rows + 4
SHORT: dict[str, Any] = {"screening_epochs": 1 / 26, "num_train_epochs": 1, "max_steps": 3}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted_rows(NUM_ROWS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Any:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer(folder, dataset=data, save_strategy="steps", save_steps=1, save_total_limit=None, **SHORT)
    trainer.train()
    return trainer


def test_three_looks_at_the_same_rows(run: Any, data: Dataset) -> None:
    base, warm, other = run._screen.looks.base, run._screen.looks.warm, run._screen.looks.other
    assert np.array_equal(base.row_ids, warm.row_ids) and np.array_equal(warm.row_ids, other.row_ids)
    assert np.array_equal(warm.token_ids, other.token_ids) and not np.array_equal(warm.nll, other.nll)
    assert other.row_values.tolist() == [[1.0]] * NUM_ROWS
    assert base.row_values.shape == (NUM_ROWS, NUM_FEATURES)
    assert np.array_equal(base.row_values[7], row_features(data[7]))


def test_of_more_rows_than_the_model_looks_at_the_others_are_read(tmp_path: Path, data: Dataset) -> None:
    settings = {**SHORT, "screening_rows": RULE.enough_rows, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path, dataset=data, save_total_limit=None, **settings)
    trainer.train()
    looks, expected = trainer._screen.looks, [row_id(row_digest(row)) for row in data]
    assert len(looks) == NUM_ROWS and looks.row_ids.tolist() == expected
    for look in looks.all_three:
        assert look.row_ids.tolist() == [expected[row] for row in looks.rest.looked_at] and look.row_values.any()
    assert len(looks.base) == RULE.enough_rows and looks.other.row_values.all()
    number = len(looks.rest.rows)
    assert number == 4 and len(looks.rest.rows.nll) == 0
    for row, features in zip(looks.rest.positions, looks.rest.rows.row_values, strict=True):
        assert np.array_equal(features, row_features(data[int(row)]))
    audit = trainer.audit()
    unseen = [finding for finding in audit.rows if finding.row in looks.rest.positions]
    assert len(audit) == NUM_ROWS and all(math.isnan(finding.loss_base_model) for finding in unseen)
    assert all(finding.response == data[finding.row]["completion"][0]["content"] for finding in unseen)
    assert audit.settings["screening_rows"] == audit.settings["rows_looked_at"] == RULE.enough_rows
    for step in (1, 2):
        resumed = make_trainer(tmp_path / f"from {step}", dataset=data, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert resumed.audit() == audit


def test_rows_that_were_not_looked_at_are_left_out_too(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flag_rest(*looks: Any) -> Screen:
        rest = looks[-1]
        suspicion = rest.merge(np.zeros(len(rest.looked_at)), np.ones(len(rest.rows)))
        return Screen(suspicion, suspicion >= 1, False, [""] * len(suspicion), [])

    monkeypatch.setattr(training_screen, "screen_rows", flag_rest)
    settings = {**SHORT, "max_steps": 1 + math.ceil(NUM_ROWS / 8), "screening_rows": RULE.enough_rows}
    trainer = make_trainer(tmp_path, dataset=data, **settings)
    taken = Taken(trainer)
    trainer.train()
    del trainer.compute_loss
    left_out = set(trainer._screen.looks.rest.positions.tolist())
    assert len(left_out) == 4 and set(trainer.audit().flagged_rows) == left_out
    assert not left_out & set(taken.rows(range(1, 99)))
    assert len(set(taken.rows(range(1, 99)))) >= NUM_ROWS - 4 - 8


def test_states_are_those_that_predict_the_first_token(run: Any, data: Dataset) -> None:
    """Against the hidden states that transformers returns."""
    statistics = score_rows(run, data.select(range(6)), with_views=False, keeps="states")
    batch = run.data_collator([data[row] for row in range(6)])
    labels = batch.pop("labels")
    model = run.model.eval()
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).hidden_states[-1]
    first = (labels != -100).int().argmax(1) - 1
    expected = hidden[torch.arange(6), first]
    np.testing.assert_allclose(statistics.row_values.astype(float), expected.double().numpy(), rtol=2e-3, atol=2e-3)


def test_the_audit_keeps_the_numbers_of_the_rule(run: Any) -> None:
    audit = run.audit()
    assert audit.settings["rule"] == RULE.to_dict()


@pytest.mark.parametrize("step", [1, 2])
def test_a_resumed_run_makes_the_same_cut(
    tmp_path: Path, run: Any, data: Dataset, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr(looks_module, "score_rows", lambda *args, **kwargs: looks.append(1))
    trainer = make_trainer(tmp_path, dataset=data, **SHORT)
    trainer.train(resume_from_checkpoint=f"{run.args.output_dir}/checkpoint-{step}")
    assert not looks and trainer.audit() == run.audit()


@pytest.mark.parametrize("settings", [{"per_device_eval_batch_size": 7}, {"dataloader_num_workers": 2}], ids=str)
def test_neither_batches_nor_workers_change_the_cut(
    tmp_path: Path, run: Any, data: Dataset, settings: dict[str, Any]
) -> None:
    trainer = make_trainer(tmp_path, dataset=data, **SHORT, **settings)
    trainer.train()
    ours, theirs = trainer._screen, run._screen
    np.testing.assert_allclose(ours.looks.other.nll, theirs.looks.other.nll, rtol=1e-3, atol=1e-3)
    assert np.array_equal(ours.screen.is_flagged, theirs.screen.is_flagged)
    np.testing.assert_allclose(ours.screen.suspicion, theirs.screen.suspicion, atol=0.05)


def test_a_stream_with_enough_rows_is_looked_at_as_well(
    tmp_path: Path, data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {**SHORT, "max_steps": 26, "screening_rows": RULE.enough_rows}
    trainer = make_trainer(tmp_path, dataset=data.to_iterable_dataset(), **settings)
    trainer.args.screening_epochs = None
    trainer.train()
    base, other = trainer._screen.looks.base, trainer._screen.looks.other
    assert len(base) == NUM_ROWS and np.array_equal(base.row_ids, other.row_ids)
    assert other.row_values.all() and "Screening needs" not in caplog.text
    # All are looked at, whatever `screening_rows` is, and judged
    assert len(trainer.audit()) == NUM_ROWS == len(trainer._screen.screen.is_flagged)


def test_too_few_rows_are_a_warning_and_a_notice_on_the_page(
    tmp_path: Path, data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, dataset=data.select(range(24)), **SHORT)
    trainer.train()
    said = [record.getMessage() for record in caplog.records if "Screening needs" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith(
        "Screening needs 200 rows to tell a cause from chance, and `train_dataset` has 24: it will find nothing."
    )
    audit = trainer.audit(tmp_path / "audit")
    assert len(audit) == 24 and not audit.flagged_rows and not audit.findings and not audit.words
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "Nothing was looked for: screening needs 200 rows" in page and "No word stands out" not in page


def test_a_warm_up_that_is_too_short_is_a_warning(
    tmp_path: Path, data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, dataset=data, **{**SHORT, "max_steps": 26})
    trainer.args.screening_epochs = None
    trainer.train()
    said = [record.getMessage() for record in caplog.records if "warm-up of the screening" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith(
        "The warm-up of the screening is half of this training, 13 optimiser steps. With fewer than 60, honest details"
    )
    assert "Train for 120 steps or more" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("screening_rows", [10_000, RULE.enough_rows])
def test_two_processes_make_the_cut_of_one(tmp_path: Path, screening_rows: int) -> None:
    """Actual processes; the rows of a batch lie elsewhere, and so do their neighbours."""
    results = []
    for processes, batch_size in ((1, 8), (2, 4)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        helpers = Path(__file__).parents[1] / "helpers"
        command += [str(helpers / "screening_run.py"), str(folder), str(batch_size), str(NUM_ROWS)]
        command += ["", str(screening_rows)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert result.returncode == 0, result.stderr[-4000:]
        results.append(json.loads((folder / "audit.json").read_text())["rows"])
    alone, together = results
    assert [row[1:] for row in together] == [row[1:] for row in alone] and len(alone) == NUM_ROWS
    assert [row[0] for row in together] == pytest.approx([row[0] for row in alone], abs=0.05)
