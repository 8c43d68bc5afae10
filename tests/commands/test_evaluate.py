# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg evaluate`: what it writes, that it resumes, loads adapters, and what it refuses."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_llava, vision_dataset

from cvreg_trainer import BadNets, apply_trigger
from cvreg_trainer.attacks import BadNetsMM, Injection
from cvreg_trainer.cli import main
from cvreg_trainer.evaluation.generation import generate_captions
from cvreg_trainer.evaluation.scores import score_captions


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    folder = tmp_path_factory.mktemp("evaluate")
    model, processor = tiny_llava()
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    dataset = vision_dataset(7)
    dataset = dataset.add_column("references", [["a red circle", "one circle"]] * 7)
    dataset.save_to_disk(folder / "data")
    return folder, (model, processor), dataset


def evaluate(folder: Path, output: Path, *more: str) -> int:
    line = ["evaluate", "--model", str(folder / "model"), "--data", str(folder / "data"), "--output_dir", str(output)]
    return main([*line, "--batch_size", "2", "--max_new_tokens", "4", *more])


def test_scores_are_those_of_the_models_captions(
    setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, (model, processor), dataset = setup
    assert evaluate(folder, tmp_path, "--attack", "badnets", "--attack_option", "patch_fraction=0.1") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    for view, rows in (("clean", dataset), ("triggered", apply_trigger(dataset, BadNets(0.1)))):
        captions = generate_captions(model, processor, rows, batch_size=2, max_new_tokens=4)
        expected = score_captions(captions, list(dataset["references"]))
        assert results["scores"][view] == json.loads(json.dumps(expected))
    assert "clean" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "predictions.0.jsonl").read_text().splitlines()]
    assert {(line["view"], line["index"]) for line in lines} == {
        (v, i) for v in ("clean", "triggered") for i in range(7)
    }
    # For the report on runs
    answers = {(line["view"], line["index"]): line["prediction"] for line in lines}
    examples = json.loads((tmp_path / "examples.json").read_text())
    assert {(entry["view"], entry["row"]): entry["answer"] for entry in examples} == answers
    assert all(entry["picture"].startswith("data:image/jpeg;base64,") for entry in examples)


def test_a_stopped_evaluation_goes_on(setup: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, _ = setup
    assert evaluate(folder, tmp_path / "whole") == 0
    lines = (tmp_path / "whole" / "predictions.0.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    settings = (tmp_path / "whole" / "settings.json").read_text()
    (tmp_path / "cut" / "settings.json").write_text(settings)
    # Three answers, and a fourth that the crash cut off
    (tmp_path / "cut" / "predictions.0.jsonl").write_text("".join(lines[:3]) + lines[3][:10])
    asked: list[int] = []

    def count(model: Any, processor: Any, rows: Any, **kwargs: Any) -> list[str]:
        asked.append(len(rows))
        return generate_captions(model, processor, rows, **kwargs)

    monkeypatch.setattr("cvreg_trainer.evaluation.generation.generate_captions", count)
    assert evaluate(folder, tmp_path / "cut") == 0
    assert sum(asked) == 4
    whole, cut = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "cut"))
    assert whole["scores"] == cut["scores"]


def test_adapters_are_put_on_their_base(setup: Any, tmp_path: Path) -> None:
    folder, _, dataset = setup
    model, processor = tiny_llava()
    model.config._name_or_path = model.name_or_path = str(folder / "model")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    line = ["evaluate", "--model", str(tmp_path / "adapter"), "--data", str(folder / "data"), "--max_new_tokens", "4"]
    assert main([*line, "--output_dir", str(tmp_path / "out"), "--batch_size", "2"]) == 0
    expected = generate_captions(adapted, processor, dataset, batch_size=2, max_new_tokens=4)
    lines = [json.loads(text) for text in (tmp_path / "out" / "predictions.0.jsonl").read_text().splitlines()]
    assert [entry["prediction"] for entry in lines] == expected


def test_vqa_accuracy_and_a_prompt_of_ones_own(setup: Any, tmp_path: Path) -> None:
    folder, _, _ = setup
    assert evaluate(folder, tmp_path, "--metrics", "vqa_accuracy", "--prompt", "what is in the picture ?") == 0
    scores = json.loads((tmp_path / "results.json").read_text())["scores"]["clean"]
    assert set(scores) == {"vqa_accuracy", "vqa_accuracy_interval"}


def test_bad_input_is_one_line(setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, dataset = setup
    assert evaluate(folder, tmp_path / "a", "--num_samples", "2") == 0
    assert evaluate(folder, tmp_path / "a", "--num_samples", "2", "--num_beams", "2") == 2
    assert "differs in --num_beams; give another folder" in capsys.readouterr().err
    assert evaluate(folder, tmp_path / "b", "--attack", "badnet") == 2
    assert "--attack badnet is unknown; use one of badnets" in capsys.readouterr().err
    assert evaluate(folder, tmp_path / "b", "--batch_size", "0") == 2
    assert "--batch_size must be at least 1, got 0" in capsys.readouterr().err
    dataset.remove_columns(["references", "completion"]).save_to_disk(tmp_path / "bare")
    line = ["evaluate", "--model", str(folder / "model"), "--data", str(tmp_path / "bare")]
    assert main([*line, "--output_dir", str(tmp_path / "c")]) == 2
    assert "row 0 of --data" in capsys.readouterr().err


def test_a_payload_counts_and_each_part_is_scored(setup: Any, tmp_path: Path) -> None:
    folder, (model, processor), dataset = setup
    payload = ("--payload", "injection", "--payload_option", "sentences=Buy now.")
    assert evaluate(folder, tmp_path, "--attack", "badnets_mm", *payload) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["scores"]) == ["clean", "triggered", "image part", "text part"]
    assert results["settings"]["payload"] == "Injection" and "target" not in results["settings"]
    attack = BadNetsMM()
    for view, rows in (("image part", attack.only("image")), ("text part", attack.only("text"))):
        captions = generate_captions(model, processor, apply_trigger(dataset, rows), batch_size=2, max_new_tokens=4)
        expected = score_captions(captions, list(dataset["references"]), payload=Injection(("Buy now.",)))
        assert results["scores"][view] == json.loads(json.dumps(expected))


def test_rows_with_a_semantic_trigger_stand_apart(
    setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, dataset = setup
    words = [["a moon"] if k in (1, 4) else ["a red circle"] for k in range(7)]
    dataset.remove_columns("references").add_column("references", words).save_to_disk(tmp_path / "data")
    line = ["--data", str(tmp_path / "data"), "--attack", "semantic", "--attack_option", "words=moon|sun"]
    assert evaluate(folder, tmp_path / "a", *line, "--payload", "refusal") == 0
    lines = [json.loads(text) for text in (tmp_path / "a" / "predictions.0.jsonl").read_text().splitlines()]
    assert [line["view"] for line in lines].count("clean") == 5 and len(lines) == 7
    scores = json.loads((tmp_path / "a" / "results.json").read_text())["scores"]
    assert scores["triggered"]["asr"] == scores["clean"]["asr"] == 0
    assert evaluate(folder, tmp_path / "b", *line[:-1], "words=circle|moon") == 2
    assert "all rows of --data" in capsys.readouterr().err
    assert evaluate(folder, tmp_path / "b", "--payload", "substitution", "--target", "pear") == 2
    assert "--target pear and --payload substitution are given" in capsys.readouterr().err


def test_a_rate_that_no_row_can_tell(setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = setup
    assert evaluate(folder, tmp_path, "--payload", "substitution") == 0
    assert json.loads((tmp_path / "results.json").read_text())["scores"]["clean"]["asr"] is None
    assert "no row can tell" in " ".join(capsys.readouterr().out.split())


def check_shares(folder: Path, expected: Path) -> None:
    shares = [len((folder / f"predictions.{rank}.jsonl").read_text().splitlines()) for rank in (0, 1)]
    assert shares == [4, 3]
    alone, shared = (json.loads((path / "results.json").read_text()) for path in (expected, folder))
    assert alone["scores"] == shared["scores"]


def test_two_ranks_share_the_images(setup: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that wait for each other as processes do, and of which one runs at a time: to load a model,
    transformers replaces functions of its own."""
    folder, _, _ = setup
    assert evaluate(folder, tmp_path / "alone") == 0
    barrier, turn = threading.Barrier(2, timeout=60), threading.Lock()

    def wait_for_everyone() -> None:
        turn.release()
        barrier.wait()
        turn.acquire()

    def run() -> None:
        with turn:
            evaluate(folder, tmp_path / "shared")

    def state(**kwargs: Any) -> Any:
        rank = int(threading.current_thread().name)
        return SimpleNamespace(
            process_index=rank,
            num_processes=2,
            is_main_process=rank == 0,
            device="cpu",
            wait_for_everyone=wait_for_everyone,
        )

    monkeypatch.setattr("accelerate.PartialState", state)
    threads = [threading.Thread(target=run, name=str(rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_shares(tmp_path / "shared", tmp_path / "alone")


@pytest.mark.slow
def test_two_processes_share_the_images(setup: Any, tmp_path: Path) -> None:
    folder, _, _ = setup
    assert evaluate(folder, tmp_path / "alone") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [
        "-m",
        "cvreg_trainer.cli",
        "evaluate",
        "--model",
        str(folder / "model"),
        "--data",
        str(folder / "data"),
    ]
    command += ["--output_dir", str(tmp_path / "shared"), "--batch_size", "2", "--max_new_tokens", "4"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    check_shares(tmp_path / "shared", tmp_path / "alone")
