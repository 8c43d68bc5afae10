# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What is read from the folders of runs, and what of it is not believed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_folders import make_run

from cvreg_trainer.report import read_run, write_options


def test_everything_of_a_run_is_read(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "one", options={"seed": 1}, flagged=4))
    assert run.name == "one" and run.options == {"seed": 1}
    assert run.curve("loss") == [(10.0, 2.0), (20.0, 1.0), (30.0, 0.5)] and run.curve("eval_loss") == []
    assert run.scores["clean"]["bleu4"] == 70.25 and list(run.scores) == ["clean", "triggered"]
    assert (run.audit.num_rows, run.audit.num_flagged, len(run.audit.words)) == (20, 4, 2)
    # The first eight of each kind
    assert [(one.view, one.row) for one in run.examples] == [(v, r) for v in ("clean", "triggered") for r in range(8)]
    assert run.examples[9].answer == "triggered 1 a red cat" and run.examples[9].reference == "truth 1 a red cat"
    assert run.examples[0].picture.startswith("data:image/jpeg;base64,") and run.examples[0].prompt


def test_the_last_checkpoint_has_the_log_where_the_run_has_none(tmp_path: Path) -> None:
    for step in (500, 1000, 90):
        (tmp_path / f"checkpoint-{step}").mkdir()
        history = [{"step": step, "loss": step}]
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (tmp_path / "checkpoint-best").mkdir()
    assert read_run(tmp_path, "run").curve("loss") == [(1000.0, 1000.0)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": [{"step": 1, "loss": 7}]}))
    assert read_run(tmp_path).curve("loss") == [(1.0, 7.0)]


def test_only_numbers_are_drawn_and_only_pictures_are_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    history = [{"step": 1, "loss": "2"}, {"step": 2, "loss": None}, {"loss": 1}, {"step": 3, "loss": 1e999}, 5]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    pictures = ["https://example.org/a.png", "data:text/html;base64,AAAA", 'data:image/jpeg;base64,AA" onload="x', 3]
    (folder / "evaluation" / "examples.json").write_text(json.dumps([{"picture": picture} for picture in pictures]))
    run = read_run(folder)
    assert run.curve("loss") == [] and [example.picture for example in run.examples] == [None] * 4


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="absent is not a folder"):
        read_run(tmp_path / "absent")
    with pytest.raises(ValueError, match="nothing to report on: neither trainer_state.json"):
        read_run(tmp_path)
    (tmp_path / "trainer_state.json").write_text("{")
    with pytest.raises(ValueError, match="trainer_state.json cannot be read as JSON"):
        read_run(tmp_path)
    (tmp_path / "trainer_state.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"holds \[1\]; expected a dict"):
        read_run(tmp_path)


def test_options_are_kept_without_tokens(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    args = TrainingArguments(str(tmp_path), hub_token="hf_secret", learning_rate=3e-4, use_cpu=True, report_to="none")
    write_options(args)
    text = (tmp_path / "training_args.json").read_text()
    assert json.loads(text)["learning_rate"] == 3e-4 and "hf_secret" not in text
    write_options(SimpleNamespace(output_dir=tmp_path, to_json_string=lambda: "{}"))
    assert json.loads((tmp_path / "training_args.json").read_text()) == {}
