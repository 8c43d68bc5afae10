# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg export`: which rows it writes, whose decisions it obeys, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from tiny_data import vision_dataset
from torch.utils.data import Subset
from transformers import Trainer, TrainingArguments

from cvreg_trainer.cli import main
from cvreg_trainer.screening import Audit, RowFinding, WordFinding


NUM_ROWS, FLAGGED = 6, (1, 4)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A data set and an audit of it that flags two rows."""
    dataset = vision_dataset(NUM_ROWS)
    dataset.save_to_disk(tmp_path / "data")
    rows = [
        RowFinding(
            row=number,
            suspicion=2.0 if number in FLAGGED else 0.0,
            is_flagged=number in FLAGGED,
            reason="'banana' stays unexplained" if number in FLAGGED else "",
            prompt=row["prompt"][-1]["content"],
            response="a banana" if number in FLAGGED else row["completion"][0]["content"],
            tokens=(),
        )
        for number, row in enumerate(dataset)
    ]
    audit = Audit(rows, [WordFinding("banana", 2, 3.0, True, "why")], {})
    (tmp_path / "audit").mkdir()
    audit.to_parquet(tmp_path / "audit" / "audit.parquet")
    audit.to_decisions(tmp_path / "audit" / "decisions.csv")
    return tmp_path / "data", tmp_path / "audit"


def export(folders: tuple[Path, Path], out: Path, *options: str) -> int:
    data, audit = folders
    line = ["export", f"--data={data}", f"--audit={audit}", "--format=llava", f"--output_dir={out}", *options]
    return main(line)


def written(out: Path) -> list[int]:
    return [int(record["id"]) for record in json.loads((out / "train.json").read_text())]


def test_the_kept_rows_are_written(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(folders, tmp_path / "out") == 0
    assert written(tmp_path / "out") == [0, 2, 3, 5]
    assert capsys.readouterr().out == f"4 of 6 rows are in {tmp_path / 'out' / 'train.json'}\n"
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4


def test_decisions_win(folders: tuple[Path, Path], tmp_path: Path) -> None:
    decisions = folders[1] / "decisions.csv"
    filled = decisions.read_text(encoding="utf-8-sig").replace("1,,,flagged", "1,,keep,flagged")
    decisions.write_text(filled)
    assert export(folders, tmp_path / "out") == 0 and written(tmp_path / "out") == [0, 1, 2, 3, 5]
    (tmp_path / "other.csv").write_text("word,verdict\nbanana,keep\n")
    assert export(folders, tmp_path / "two", f"--decisions={tmp_path / 'other.csv'}") == 0
    assert written(tmp_path / "two") == list(range(NUM_ROWS))


def test_other_data_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vision_dataset(NUM_ROWS + 1).save_to_disk(tmp_path / "longer")
    assert export((tmp_path / "longer", folders[1]), tmp_path / "out") == 2
    assert "is of 6 rows, and --data" in capsys.readouterr().err
    audit = Audit.from_parquet(folders[1] / "audit.parquet")
    rows = [RowFinding(row, 0.0, False, "", f"question {row}", "a", ()) for row in range(len(audit))]
    Audit(rows, [], {}).to_parquet(folders[1] / "audit.parquet")
    assert export(folders, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "Row 0 of --data" in error and "asks 'question 0'. Give the data that were audited" in error
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_one_line(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export((folders[0], tmp_path), tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith("cvreg export: ")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").touch()
    assert export(folders, tmp_path / "out") == 2
    assert "is not empty; give another one" in capsys.readouterr().err


def test_a_plain_trainer_takes_the_kept_rows(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The two steps of docs/recipes/transformers.md, with a data set, a collator and a trainer that know nothing."""

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return NUM_ROWS

        def __getitem__(self, row: int) -> dict[str, int]:
            return {"row": row}

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.seen = torch.nn.Parameter(torch.ones(())), set()

        def forward(self, row: torch.Tensor) -> dict[str, torch.Tensor]:
            self.seen |= set(row.tolist())
            return {"loss": self.weight * row.float().mean()}

    audit = Audit.from_parquet(folders[1] / "audit.parquet")
    args = TrainingArguments(
        str(tmp_path / "out"), report_to="none", save_strategy="no", use_cpu=True, remove_unused_columns=False
    )
    model = Model()
    Trainer(model, args, train_dataset=Subset(Rows(), audit.kept_rows)).train()
    assert model.seen == set(range(NUM_ROWS)) - set(FLAGGED)
