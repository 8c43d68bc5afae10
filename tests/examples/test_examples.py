# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The example scripts, run as a reader would: as they are, and with the change undone that their docstrings show."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from peft import PeftConfig
from transformers import AutoModelForImageTextToText, AutoProcessor


ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.slow


def run(script: Path, *arguments: str, ok: bool = True) -> str:
    """What a script prints (standard output and errors) when it is run from the repository's root."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


def logged(output: str, name: str) -> list[float]:
    """The logged values of one metric, in order."""
    return [float(value) for value in re.findall(rf"'{name}': '([^']+)'", output)]


def undone(script: Path) -> str:
    """The source with the diff of its docstring applied backwards."""
    source = script.read_text()
    docstring = ast.get_docstring(ast.parse(source), clean=False)
    body = source.replace(docstring, "")
    hunks = re.findall(r"(?:^    -(.*)\n)?((?:^    \+.*\n)+)", docstring + "\n", flags=re.MULTILINE)
    assert len(hunks) == 3
    for old, added in hunks:
        new = "".join(f"{line[5:]}\n" for line in added.splitlines())
        assert body.count(new) == 1, f"the docstring shows lines that the script does not have:\n{new}"
        body = body.replace(new, f"{old}\n")
    return body


@pytest.mark.parametrize("name", ["train_llava", "train_blip2"])
def test_tiny_run_logs_the_terms_and_saves_a_model(name, tmp_path):
    output = run(EXAMPLES / f"{name}.py", "--tiny", "--output_dir", str(tmp_path))
    parts = [logged(output, part) for part in ("loss", "task_loss", "patch_loss", "discrepancy_loss", "entropy_loss")]
    assert all(len(part) >= 4 for part in parts)
    assert all(0 < similarity <= 1 for similarity in parts[3])
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.pad_token == "<pad>"
    if name == "train_blip2":
        assert PeftConfig.from_pretrained(tmp_path).r == 16
    else:
        assert AutoModelForImageTextToText.from_pretrained(tmp_path).num_parameters() > 1_000_000


def test_lora_run_saves_an_adapter(tmp_path):
    run(EXAMPLES / "train_llava.py", "--tiny", "--lora", "--output_dir", str(tmp_path))
    assert PeftConfig.from_pretrained(tmp_path).lora_alpha == 32


def save_model(tiny, folder: Path) -> str:
    tiny.model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return str(folder)


def save_rows(folder: Path, as_caption: bool) -> str:
    """A JSON lines file beside its images, with the columns that one of the scripts reads."""
    lines = []
    for index, row in enumerate(tiny_models.vision_rows(40, style="messages")):
        image = folder / f"{index}.png"
        row["images"][0].save(image)
        text = {"caption": row["messages"][1]["content"]} if as_caption else {"messages": row["messages"]}
        lines.append(json.dumps({"image": str(image), **text}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


@pytest.mark.parametrize("name", ["train_llava", "train_blip2"])
def test_own_model_and_data(name, tmp_path):
    blip2 = name == "train_blip2"
    tiny = tiny_models.tiny_blip2_t5() if blip2 else tiny_models.tiny_llava()
    model, data = save_model(tiny, tmp_path / "model"), save_rows(tmp_path, as_caption=blip2)
    output = run(EXAMPLES / f"{name}.py", "--model", model, "--data", data, "--output_dir", str(tmp_path / "out"))
    assert 1 < logged(output, "eval_loss")[-1] < 10


@pytest.mark.parametrize("name", ["train_llava", "train_blip2"])
def test_undoing_the_change_gives_a_script_for_the_stock_trainer(name, tmp_path):
    body = undone(EXAMPLES / f"{name}.py")
    assert "CrossView" not in body
    script = tmp_path / f"{name}_stock.py"
    script.write_text(body)
    # The command line keeps its lambda options; nothing reads them any more.
    output = run(script, "--tiny", "--output_dir", str(tmp_path / "out"))
    assert len(logged(output, "loss")) >= 4
    assert not logged(output, "task_loss")


def test_llava_without_lambdas_trains_as_the_stock_trainer(tmp_path):
    script = tmp_path / "stock.py"
    script.write_text(undone(EXAMPLES / "train_llava.py"))
    zeros = [f"--lambda_{term}=0" for term in ("patch", "discrepancy", "entropy")]
    stock = run(script, "--tiny", "--output_dir", str(tmp_path / "stock"))
    ours = run(EXAMPLES / "train_llava.py", "--tiny", "--output_dir", str(tmp_path / "ours"), *zeros)
    assert logged(ours, "loss") == logged(stock, "loss")
    assert logged(ours, "eval_loss") == logged(stock, "eval_loss")


def test_data_is_asked_for(tmp_path):
    assert "--data is required" in run(EXAMPLES / "train_llava.py", "--output_dir", str(tmp_path), ok=False)
