# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Screening beside `on_bad_row="skip"`: rows keep the numbers of the data set that was given."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Image, List
from screening_checks import train, weights_of
from screening_run import NUM_ROWS, PLANTED, make_trainer, planted_rows


pytestmark = pytest.mark.usefixtures("flags_sentence")
BROKEN = (0, 5, 18)


def with_broken(dataset: Dataset) -> Dataset:
    """The same rows, of which some have bytes that are no image."""
    stored = list(dataset.cast_column("images", List(Image(decode=False)))["images"])
    for row in BROKEN:
        stored[row] = [{"bytes": b"no image", "path": None}]
    return dataset.remove_columns("images").add_column("images", stored, feature=List(Image()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A training that skips, and one without the broken rows."""
    folder = tmp_path_factory.mktemp("run")
    skips, _ = train(folder / "skips", dataset=with_broken(planted_rows()), on_bad_row="skip")
    left = planted_rows().select([row for row in range(NUM_ROWS) if row not in BROKEN])
    without, _ = train(folder / "without", dataset=left)
    return skips, without


def test_it_is_the_training_without_these_rows(run: Any) -> None:
    skips, without = run
    ours, theirs = weights_of(skips), weights_of(without)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert list(skips.skipped_rows.reasons) == list(BROKEN)
    lines = (Path(skips.args.output_dir) / "skipped_rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == list(BROKEN)


def test_the_audit_counts_as_the_data_set_does(run: Any, tmp_path: Path) -> None:
    skips, without = run
    audit = skips.audit(tmp_path / "audit", labels=[row in PLANTED for row in range(NUM_ROWS)])
    assert audit.flagged_rows == list(PLANTED)
    assert audit.kept_rows == [row for row in range(NUM_ROWS) if row not in (*PLANTED, *BROKEN)]
    assert audit.evaluate([row in PLANTED for row in range(NUM_ROWS)])["flag_recall"] == 1
    assert audit.settings["skipped_rows"] == len(BROKEN)
    theirs = [finding.response for finding in without.audit().rows]
    assert [finding.response for finding in audit.rows] == theirs


def test_so_do_decisions(run: Any, tmp_path: Path) -> None:
    skips, _ = run
    skips.audit(tmp_path / "audit")
    path = tmp_path / "audit" / "decisions.csv"
    with path.open(encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["verdict"] = "keep" if line["row"] == str(PLANTED[1]) else ""

    def write(more: list[dict[str, str]]) -> None:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, lines[0])
            table.writeheader()
            table.writerows([*lines, *more])

    write([])
    settings = {"dataset": with_broken(planted_rows()), "on_bad_row": "skip", "screening_decisions": str(path)}
    decided = make_trainer(tmp_path / "run", **settings)
    decided.train()
    assert decided.audit().flagged_rows == [row for row in PLANTED if row != PLANTED[1]]
    write([{"row": str(BROKEN[1]), "verdict": "drop"}])
    with pytest.raises(ValueError, match=r"decides on row 5, which `on_bad_row='skip'` leaves out: .*cannot be read"):
        make_trainer(tmp_path / "run", **settings).train()


def test_evaluation_sets_are_skipped_too_and_predictions_are_not(tmp_path: Path) -> None:
    broken = with_broken(planted_rows())
    settings = {"eval_dataset": broken, "on_bad_row": "skip", "screening": "off"}
    trainer = make_trainer(tmp_path, dataset=broken, **settings)
    assert len(trainer.eval_dataset) == len(trainer.train_dataset) == NUM_ROWS - len(BROKEN)
    assert trainer.evaluate(broken)["eval_loss"] == trainer.evaluate()["eval_loss"] > 0
    with pytest.raises(ValueError, match="Row 0"):
        trainer.predict(broken)


def test_the_model_card_counts_them(run: Any) -> None:
    skips, without = run
    skips.create_model_card()
    without.create_model_card()
    said = f"3 of {NUM_ROWS} training rows could not be read and were left out."
    assert said in (Path(skips.args.output_dir) / "README.md").read_text()
    assert "could not be read" not in (Path(without.args.output_dir) / "README.md").read_text()
