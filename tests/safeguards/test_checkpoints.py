# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What is not a whole checkpoint of the same training is refused by name, before anything is overwritten."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from screening_run import make_trainer, planted_texts
from tiny_models import tiny_text_lm

from cvreg_trainer.safeguards.checkpoints import last_whole_checkpoint, what_is_broken
from cvreg_trainer.screening import checkpoint as screening_checkpoint


SETTINGS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8, "screening_epochs": 0.5}


def text_trainer(folder: Path, **settings: Any) -> Any:
    build = settings.pop("build", tiny_text_lm)
    return make_trainer(folder, build, planted_texts(), **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    text_trainer(folder).train()
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


BREAKS: dict[str, Any] = {
    "trainer_state.json": lambda path: path.unlink(),
    "trainer_state.json ": cut,
    "cross_view_defense.json": cut,
    "model.safetensors": cut,
    "screening.safetensors": cut,
    "optimizer.pt": cut,
    "scheduler.pt": cut,
}


@pytest.mark.parametrize("file", BREAKS)
def test_a_checkpoint_with_a_broken_file_is_passed_over_or_refused(
    folder: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    file, break_it = file.strip(), BREAKS[file]
    break_it(folder / "checkpoint-8" / file)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ValueError, match=f"checkpoint-8 is not a whole checkpoint: `{file}` .*Resume from an earlier"):
        text_trainer(folder).train(resume_from_checkpoint=str(folder / "checkpoint-8"))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert last_whole_checkpoint(folder) == str(folder / "checkpoint-6")
    assert f"checkpoint-8 is not a whole checkpoint: `{file}`" in caplog.text


def test_without_any_whole_checkpoint_all_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No valid checkpoint found in output directory .*Start the training anew"):
        text_trainer(tmp_path).train(resume_from_checkpoint=True)
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(ValueError, match="checkpoint-10: `trainer_state.json` is missing.*; checkpoint-2: "):
        text_trainer(tmp_path).train(resume_from_checkpoint=True)
    assert what_is_broken(tmp_path / "absent") == "the folder does not exist"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 7}, "`seed` was 42 and is 7"),
        ({"lambda_patch": 0.5}, "`lambda_patch` was 0.0 and is 0.5"),
        ({"screening": "report"}, "`screening` was 'drop' and is 'report'"),
        ({"screening": "off"}, "`screening` was 'drop' and is 'off'"),
        ({"screening_cap": 0.1, "seed": 3}, "`seed` was 42 and is 3, `screening_cap` was 0.3 and is 0.1"),
        ({"build": lambda: tiny_text_lm(layers=3)}, "`trainable parameters` was .* and is "),
    ],
)
def test_another_training_s_checkpoint_is_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ValueError, match=f"^The checkpoint of step 4 in .* is that of another training: {message}"):
        text_trainer(folder, **settings).train(resume_from_checkpoint=str(folder / "checkpoint-4"))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_options_may_change(folder: Path) -> None:
    trainer = text_trainer(folder, learning_rate=0.01, max_steps=10)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 10


def test_a_full_disk_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer = text_trainer(tmp_path)
    inner = trainer.save_model
    trainer.save_model = lambda path, **kwargs: full() if path.endswith("-4") else inner(path, **kwargs)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    monkeypatch.setattr(screening_checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        text_trainer(tmp_path).train(resume_from_checkpoint=True)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
