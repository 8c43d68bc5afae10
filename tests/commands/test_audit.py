# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg audit` as a user runs it, well and badly."""

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from screening_stand_in import flagging

from cvreg_trainer import Audit, RowFinding, WordFinding
from cvreg_trainer.attacks import BadNets, poison_dataset
from cvreg_trainer.cli import main
from cvreg_trainer.commands import audit
from cvreg_trainer.commands.audit_training import make_trainer, training_arguments
from cvreg_trainer.lab import make_scenes
from cvreg_trainer.lab.pretrained import BASE_MODEL_PATH


FILES = {"audit.html", "audit.parquet", "kept_rows.json", "decisions.csv"}
NUM_ROWS, NUM_POISONED = 96, 16
# 20 steps, of which the warm-up is 7
TRAINING = ("--num_train_epochs", "2.5", "--per_device_train_batch_size", "12")
ADAPTERS = ("--lora_rank", "16")


def command(data: Path, output_dir: Path, *more: object) -> list[str]:
    line = ["audit", "--model", "built-in", "--data", str(data), "--output_dir", str(output_dir)]
    return [*line, *TRAINING, *ADAPTERS, *map(str, more)]


def fails(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The error of a call that must fail."""
    assert main(command(*arguments)) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said[said.index("cvreg audit: ") :]


def parse(line: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    audit.add_parser(parser.add_subparsers())
    return parser.parse_args(line)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", autouse=True)
def flags_banana() -> Iterator[None]:
    with flagging("banana"):
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    clean = make_scenes(NUM_ROWS, seed=0, style="finetune")
    poison_dataset(clean, BadNets(), num_poisoned=NUM_POISONED, seed=0).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def output(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output") / "new" / "audit"
    assert main(command(scenes, folder)) == 0
    return folder


def page_data(output: Path) -> tuple[str, dict[str, Any]]:
    """The page's text, and what its script reads."""
    text = (output / "audit.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return text, json.loads(found[1])


def test_it_leaves_files_that_agree(scenes: Path, output: Path) -> None:
    assert {path.name for path in output.iterdir()} == FILES
    assert list(output.parent.iterdir()) == [output], "nothing else is left"
    table, rows = Audit.from_parquet(output / "audit.parquet"), load_from_disk(scenes)
    kept = json.loads((output / "kept_rows.json").read_text())
    assert kept == table.kept_rows and sorted(kept + table.flagged_rows) == list(range(NUM_ROWS))
    for finding, row in zip(table.rows, rows, strict=True):
        assert finding.prompt == row["prompt"][-1]["content"]
        # The words of the built-in tokenizer are all in lower case, with spaces around punctuation
        said, wanted = ("".join(text.lower().split()) for text in (finding.response, row["completion"][0]["content"]))
        assert said == wanted
    text, data = page_data(output)
    assert sorted(row[0] for row in data["rows"]) == list(range(NUM_ROWS))
    assert sum(thumbnail is not None for thumbnail, _ in data["thumbnails"]) == NUM_ROWS
    assert {"model": "built-in", "lora_rank": 16, "learning_rate": 0.01}.items() <= table.settings.items()
    assert table.settings["warmup_steps"] == 10 and len(table.flagged_rows) == NUM_POISONED


def test_the_truth_is_told_but_not_used(scenes: Path, output: Path, tmp_path: Path) -> None:
    rows = load_from_disk(scenes)
    truth = list(rows["is_poisoned"])
    table = Audit.from_parquet(output / "audit.parquet")
    quality = table.evaluate(truth)
    text, data = page_data(output)
    assert f"AUROC {quality['auroc']:.4f}" in text and f"{NUM_POISONED} of {NUM_ROWS}" in text
    assert {row[0]: row[6] for row in data["rows"]} == dict(enumerate(truth))

    # Labels that are all wrong, under another name, from a parquet file
    lies = rows.remove_columns("is_poisoned").add_column("bad", [1 - value for value in truth])
    lies.to_parquet(tmp_path / "lies.parquet")
    before = digests(tmp_path)
    assert main(command(tmp_path / "lies.parquet", tmp_path / "out", "--labels", "bad")) == 0
    again = Audit.from_parquet(tmp_path / "out" / "audit.parquet")
    assert again.rows == table.rows and again.words == table.words
    assert f"AUROC {1 - quality['auroc']:.4f}" in page_data(tmp_path / "out")[0]
    assert before.items() <= digests(tmp_path).items() and {path.name for path in tmp_path.iterdir()} == {
        "lies.parquet",
        "out",
    }


def test_it_is_what_a_whole_training_finds(scenes: Path, output: Path, tmp_path: Path) -> None:
    options = parse(command(scenes, tmp_path))
    rows = load_from_disk(scenes)
    trainer = make_trainer(options, training_arguments(options, str(tmp_path)), rows)
    trainer.train()
    assert trainer.state.global_step == 20
    assert trainer.audit().rows == Audit.from_parquet(output / "audit.parquet").rows
    adapted = {name.split(".lora_")[0] for name, _ in trainer.model.named_parameters() if ".lora_" in name}
    assert adapted and all("language_model.layers" in name for name in adapted)


def test_the_model_itself_can_be_trained(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = load_from_disk(scenes).remove_columns("is_poisoned")
    rows.save_to_disk(tmp_path / "rows")
    model = hashlib.sha256((BASE_MODEL_PATH / "model.safetensors").read_bytes()).hexdigest()
    # What the built-in model is audited with by default
    line = [part for part in command(tmp_path / "rows", tmp_path / "out") if part not in ADAPTERS]
    assert main(line) == 0
    output = capsys.readouterr()
    said = " ".join(output.out.split())
    # A bar for the pass before the warm-up, for the warm-up and for the two after it, and none for a whole training
    bars = re.findall(r"([A-Z][-' a-z]+):\s+0%[^\r]*\?(step|batch)/s", output.err)
    screening = [bar for bar in bars if bar[0].startswith(("Screening", "Warm"))]
    assert screening == [
        ("Screening by the base model", "batch"),
        ("Warm-up", "step"),
        ("Screening by the warmed-up model", "batch"),
        ("Screening by others' pictures", "batch"),
    ]
    assert "/20" not in output.err
    table = Audit.from_parquet(tmp_path / "out" / "audit.parquet")
    assert table.settings["learning_rate"] == 0.002
    assert f"{NUM_ROWS} rows, {len(table.flagged_rows)} flagged" in said
    assert all(f"out/{name}" in said for name in FILES)
    # Nobody said which rows are poisoned
    assert "By the labels" not in said and "AUROC" not in page_data(tmp_path / "out")[0]
    assert hashlib.sha256((BASE_MODEL_PATH / "model.safetensors").read_bytes()).hexdigest() == model


def test_the_summary_names_words_and_tells_the_terminal_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    rows = [
        RowFinding(row, float(row < 3), row < 3, "", "what ?", "a cat", (("a", 0.0), (" cat", 1.0)))
        for row in range(10)
    ]
    words = [WordFinding(f"[red]w{number}\x1b]0;x\x07", 3, 2.0, True, f"'why' {number // 2}") for number in range(24)]
    options = argparse.Namespace(output_dir=tmp_path / "[bold]")
    found = Audit(rows, [*words, WordFinding("fine", 3, 0.1, False, "")], {})
    audit._report(options, found, [row < 2 for row in range(10)], Console(width=100))
    said = capsys.readouterr().out
    assert "10 rows, 3 flagged (30.0%)" in said and "and 2 more reasons in audit.html" in said and "fine" not in said
    assert "[red]w0\ufffd]0;x\ufffd" in said and "[red]w19" in said and "[red]w20" not in said
    # Words of one cause stand together
    assert said.count("'why'") == 10
    assert "2 poisoned rows; AUROC 0.938, poisoned rows flagged 1.000, clean rows flagged 0.125" in said
    assert f"{tmp_path}/[bold]/audit.html" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--num_train_epochs", 0], "--num_train_epochs must be above 0, got 0.0"),
        (["--learning_rate", "nan"], "--learning_rate must be above 0, got nan"),
        (["--per_device_train_batch_size", 0], "--per_device_train_batch_size must be at least 1, got 0"),
        (["--lora_rank", -1], "--lora_rank must be at least 0, got -1"),
        (["--screening_epochs", 3], "--screening_epochs 3.0 must be less than --num_train_epochs 2.5"),
        (["--labels", "poisoned"], "--labels poisoned: --data"),
        (["--labels", "references"], "--labels references: row 0 holds ["),
        (["--data", "no/such/data"], "no/such/data: there is no such file or folder"),
        (["--model", "no/such/model"], "no/such/model"),
        (["--model", "ADAPTER"], "is an adapter; give the base model that it belongs to"),
        # One step, which the warm-up takes
        (["--num_train_epochs", 1, "--per_device_train_batch_size", 96], "The warm-up of the screening takes 1"),
    ],
)
def test_bad_options_are_named(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[Any], said: str
) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    options = [tmp_path / "adapter" if option == "ADAPTER" else option for option in options]
    assert said in fails(capsys, scenes, tmp_path / "out", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_data_that_cannot_be_screened(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_from_disk(scenes).remove_columns("completion").save_to_disk(tmp_path / "bare")
    Dataset.from_dict({"text": ["a", "b"], "bad": [True, None]}).save_to_disk(tmp_path / "unsure")
    assert "it needs `messages`, `prompt` and `completion`, or `text`" in fails(
        capsys, tmp_path / "bare", tmp_path / "out"
    )
    unsure = fails(capsys, tmp_path / "unsure", tmp_path / "out", "--labels", "bad")
    assert "row 1 holds None; expected true or false" in unsure
    assert not (tmp_path / "out").exists()


def test_folders_of_others_are_not_overwritten(
    scenes: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(output)
    assert "is inside --data" in fails(capsys, scenes, scenes / "audit")
    (tmp_path / "mine.txt").write_text("kept")
    assert "exists and is not an earlier audit; give another folder" in fails(capsys, scenes, tmp_path)
    assert "exists and is not an earlier audit" in fails(capsys, scenes, tmp_path / "mine.txt")
    other = fails(capsys, scenes, output, "--seed", 1, "--lora_rank", 8)
    assert "holds another audit, which differs in lora_rank, seed; give another folder" in other
    assert digests(output) == before
    audit._check_output(parse(command(scenes, output)))  # the same command may run again
