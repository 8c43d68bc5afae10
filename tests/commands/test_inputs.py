# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the commands make of data as people have them: results or a sentence, never a traceback."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature

from cvreg_trainer.cli import main
from cvreg_trainer.commands import shared
from cvreg_trainer.lab import load_base_model, make_scenes


NUM_ROWS = 24
SHORT = ("--num_train_epochs", "2", "--per_device_train_batch_size", "8")


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return make_scenes(NUM_ROWS, seed=0, style="finetune").remove_columns("references")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model, processor = load_base_model()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def png(row: dict[str, Any], form: str = "PNG", share: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    row["images"][0].save(buffer, form)
    return buffer.getvalue()[: int(share * buffer.tell())]


def conversation(row: dict[str, Any]) -> list[dict[str, str]]:
    answer = row["completion"][0]["content"]
    return [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": answer}]


def write(kind: str, scenes: Dataset, folder: Path) -> Path:
    """The scenes as people have them."""
    rows = list(scenes)
    texts = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
    if kind == "some without an image":
        without = [{**row, "images": None if number % 3 == 0 else row["images"]} for number, row in enumerate(rows)]
        Dataset.from_list(without, features=scenes.features).save_to_disk(folder / kind)
        return folder / kind
    if kind == "bytes":
        Dataset.from_list([{**text, "image": png(row)} for text, row in zip(texts, rows, strict=True)]).to_parquet(
            folder / "rows.parquet"
        )
        return folder / "rows.parquet"
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, row in enumerate(rows):
        (pictures / f"{number}.png").write_bytes(png(row))
    if kind == "image folder":
        lines = [
            json.dumps({"file_name": f"{number}.png", "text": f"<image> {row['completion'][0]['content']}"})
            for number, row in enumerate(rows)
        ]
        (pictures / "metadata.jsonl").write_text("\n".join(lines))
        return pictures
    if kind == "llava":
        talks = [{"image": f"pictures/{n}.png", "conversations": conversation(row)} for n, row in enumerate(rows)]
        (folder / "llava.json").write_text(json.dumps(talks))
        return folder / "llava.json"
    assert kind == "named in messages"
    talks = []
    for number, row in enumerate(rows):
        parts = [{"type": "image", "path": f"pictures/{number}.png"}, {"type": "text", "text": "What is this?"}]
        answer = [{"type": "text", "text": row["completion"][0]["content"]}]
        talks.append({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]})
    (folder / "messages.jsonl").write_text("\n".join(map(json.dumps, talks)))
    return folder / "messages.jsonl"


KINDS = ("some without an image", "bytes", "image folder", "llava", "named in messages")


@pytest.mark.parametrize("kind", KINDS)
def test_audit(tmp_path: Path, scenes: Dataset, kind: str) -> None:
    data, out = write(kind, scenes, tmp_path), tmp_path / "audit"
    assert main(["audit", "--model", "built-in", "--data", str(data), "--output_dir", str(out), *SHORT]) == 0
    assert len(json.loads((out / "kept_rows.json").read_text())) <= NUM_ROWS
    assert "data:image/" in (out / "audit.html").read_text()


@pytest.mark.parametrize("kind", ["some without an image", "llava", "named in messages"])
def test_evaluate(tmp_path: Path, scenes: Dataset, model: Path, kind: str) -> None:
    data, out = write(kind, scenes, tmp_path), tmp_path / "evaluation"
    assert main(["evaluate", "--model", str(model), "--data", str(data), "--output_dir", str(out)]) == 0
    assert json.loads((out / "results.json").read_text())["num_items"] == NUM_ROWS


@pytest.mark.parametrize("kind", ["some without an image", "bytes", "llava"])
def test_poison(tmp_path: Path, scenes: Dataset, kind: str) -> None:
    data, out = write(kind, scenes, tmp_path), tmp_path / "poisoned"
    assert main(["poison", "--data", str(data), "--num_poisoned", "3", "--output_dir", str(out)]) == 0
    assert len(json.loads((out / "poison.json").read_text())["poisoned_indices"]) == 3


def lines(command: str, data: Path, folder: Path, model: Path) -> list[str]:
    options = {
        "audit": ["--model", "built-in", *SHORT],
        "evaluate": ["--model", str(model), "--attack", "badnets"],
        "poison": ["--poison_rate", "1"],
    }
    return [command, "--data", str(data), "--output_dir", str(folder / "out"), *options[command]]


def table(rows: list[dict[str, Any]], features: Features | None = None) -> Any:
    return lambda path: Dataset.from_list(rows, features=features).to_parquet(path)


QUESTION, ANSWER = [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]
BAD: dict[str, tuple[Any, str]] = {
    "no rows": (lambda path: Dataset.from_dict({"prompt": ["a"]}).select([]).to_parquet(path), "has no rows"),
    "not parquet": (lambda path: path.write_bytes(b"PAR1 or not"), "cannot be read as a data set"),
    "other columns": (table([{"x": 1}]), "it needs|has no reference"),
    "a number for a prompt": (table([{"prompt": 3, "completion": 4}] * 2), "its `prompt` is 3"),
    "no response": (table([{"prompt": QUESTION, "completion": None}, {"prompt": QUESTION, "completion": ANSWER}]),
                    "[Rr]ow 0 .*(its `completion` is None|has no reference)"),
    "a number for an image": (table([{"image": 3, "prompt": "a", "completion": "b"}]), "column `image` holds"),
    "a file outside": (table([{"image": "/etc/hostname", "prompt": "a", "completion": "b"}]), "leads out of"),
    "an address": (table([{"image": "https://localhost:1/a.png", "prompt": "a", "completion": "b"}]), "not fetched"),
    "an unknown speaker": (table([{"image": None, "conversations": [{"from": "x", "value": "y"}]}]), "Row 0: turn 0"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["audit", "evaluate", "poison"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_data_get_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path, command: str, kind: str
) -> None:
    make, message = BAD[kind]
    make(tmp_path / "rows.parquet")
    assert main(lines(command, tmp_path / "rows.parquet", tmp_path, model)) == 2
    said = capsys.readouterr().err
    last = said[said.index(f"cvreg {command}: ") :]
    assert "Traceback" not in said and len(last) < 600
    assert re.search(message, last), last


@pytest.mark.parametrize("command", ["audit", "evaluate", "poison", "preview"])
def test_a_broken_image_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scenes: Dataset, model: Path, command: str
) -> None:
    rows = [
        {"image": {"bytes": png(row, "JPEG", 0.4 if number == 2 else 1), "path": None},
         "prompt": row["prompt"], "completion": row["completion"]}
        for number, row in enumerate(scenes)
    ]  # fmt: skip
    turns = List({"role": Value("string"), "content": Value("string")})
    features = Features({"image": ImageFeature(), "prompt": turns, "completion": turns})
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    line = lines(command if command != "preview" else "poison", tmp_path / "rows.parquet", tmp_path, model)
    if command == "preview":
        line += ["--preview", str(tmp_path / "p.png")]
    assert main(line) == 2
    said = capsys.readouterr().err
    last = said[said.index("cvreg ") :]
    assert "Traceback" not in said
    assert "Row 2" in last and "column `image`" in last and "truncated" in last.lower()


def test_image_root(tmp_path: Path, scenes: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    data = write("llava", scenes, tmp_path)
    moved = tmp_path / "data" / "llava.json"
    moved.parent.mkdir()
    data.rename(moved)
    line = ["poison", "--data", str(moved), "--num_poisoned", "3", "--output_dir", str(tmp_path / "out")]
    assert main(line) == 2
    assert "row 0, column `image`: its image 'pictures/0.png' is not in" in capsys.readouterr().err
    assert main([*line, "--image_root", str(tmp_path)]) == 0


def test_an_unexpected_error_is_a_line_unless_the_traceback_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("cvreg_trainer.commands.poison.open_data", fail)
    assert shared.open_data is not fail
    line = ["poison", "--data", "x", "--num_poisoned", "1", "--output_dir", str(tmp_path / "out")]
    assert main(line) == 1
    said = capsys.readouterr().err
    assert said.startswith("cvreg poison: RuntimeError: unforeseen\n") and "cvreg --traceback poison" in said
    with pytest.raises(RuntimeError, match="unforeseen"):
        main(["--traceback", *line])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lora_rnk", "3"], "cvreg audit: error: unrecognized arguments: --lora_rnk 3; did you mean --lora_rank?"),
        (["--xyzzy"], "cvreg audit: error: unrecognized arguments: --xyzzy\n"),
    ],
)
def test_a_misspelt_option(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--model", "built-in", "--data", "a", "--output_dir", "b", *arguments])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("model", ["nobody/nothing", "{folder}"])
def test_a_model_that_is_none_is_named(
    model: str, scenes: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes.save_to_disk(tmp_path / "data")
    model = model.format(folder=tmp_path / "data")
    line = ["audit", "--model", model, "--data", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    assert main(line) == 2
    assert f"cvreg audit: --model {model}: " in capsys.readouterr().err
