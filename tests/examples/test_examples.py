# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The example scripts, run as a reader would: as they are, and with the change undone that their docstrings show."""

import ast
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny_models
from datasets import Dataset, Features, Image, List, Value
from peft import PeftConfig
from transformers import AutoModelForImageTextToText, AutoProcessor

from cvreg_trainer.attacks import BadNets, poison_dataset
from cvreg_trainer.cli import main
from cvreg_trainer.lab import load_base_model, make_scenes
from cvreg_trainer.models import flamingo  # noqa: F401  registers Flamingo with the Auto classes


ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ALL = ["train_llava", "train_blip2", "train_openflamingo", "train_otter"]
FLAMINGOS = ALL[2:]

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
    hunks = re.findall(r"((?:^    -.*\n)?)((?:^    \+.*\n)+)", docstring + "\n", flags=re.MULTILINE)
    assert hunks
    for old, new in (tuple(re.sub("^    [-+]", "", lines, flags=re.MULTILINE) for lines in hunk) for hunk in hunks):
        assert body.count(new) == 1, f"the docstring shows lines that the script does not have:\n{new}"
        body = body.replace(new, old)
    return body


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[str, Path]]:
    """What a script prints with `--tiny` and other options, and the folder it writes; each runs but once."""

    @cache
    def run_tiny(name: str, *options: str) -> tuple[str, Path]:
        folder = tmp_path_factory.mktemp(name)
        return run(EXAMPLES / f"{name}.py", "--tiny", *options, "--output_dir", str(folder)), folder

    return run_tiny


def audited(output: str, folder: Path) -> tuple[list[int], int, str]:
    """Flagged rows, number of rows, and what is printed as the first words; all of the audit that a script left."""
    table = pq.read_table(folder / "audit" / "audit.parquet").to_pydict()
    flagged = [row for row, is_flagged in zip(table["row"], table["is_flagged"], strict=True) if is_flagged]
    page = folder / "audit" / "audit.html"
    counts = f"Screening flagged {len(flagged):,} of {len(table['row']):,} rows "
    said = rf"^{counts}.+\nFlagged words: (.+)\.\nLook at {re.escape(str(page))}$"
    [words] = re.findall(said, output, flags=re.MULTILINE)
    assert "data:image/jpeg;base64," in page.read_text()  # thumbnails
    return flagged, len(table["row"]), words


@pytest.mark.parametrize("name", ALL)
def test_tiny_run_screens_its_rows_and_saves_a_model(name, tiny_run):
    output, folder = tiny_run(name)
    assert len(logged(output, "loss")) >= 4
    assert not logged(output, "task_loss")
    flagged, num_rows, _ = audited(output, folder)
    assert num_rows == {"train_llava": 950, "train_blip2": 380}.get(name, 1900)
    if name in FLAMINGOS:
        # Of clean rows, but for layers that are new: nobody may overlook it
        assert ("look at the audit before you trust the model" in output) == (len(flagged) > 0.05 * num_rows)
        assert ("More rows are suspicious than `screening_cap=0.3`" in output) == (len(flagged) == 0.3 * num_rows)
    else:
        assert len(flagged) < 0.02 * num_rows  # the scenes are clean
    assert AutoProcessor.from_pretrained(folder).tokenizer.pad_token == "<pad>"
    if name == "train_blip2":
        assert PeftConfig.from_pretrained(folder).r == 16
    else:
        assert AutoModelForImageTextToText.from_pretrained(folder).num_parameters() > 1_000_000


@pytest.mark.parametrize("name", FLAMINGOS)
def test_tiny_flamingos_learn_to_caption(name, tiny_run):
    # Screened, they are left with too few of their honest rows
    output, _ = tiny_run(name, "--screening=off")
    losses = logged(output, "loss")
    assert losses[-1] < 0.5 * losses[0]
    assert logged(output, "eval_loss")[-1] < 1
    # One sentence, ended by the family's mark rather than by the limit of 40 tokens
    caption = output.splitlines()[-2]
    assert caption.startswith("<image>") and caption.endswith(".") and caption.count(".") == 1


@pytest.mark.parametrize("name", ALL)
def test_lora_run_with_the_papers_loss_logs_its_terms_and_saves_an_adapter(name, tmp_path):
    options = ["--screening=off", "--lambda_patch=0.01", "--lambda_discrepancy=0.5", "--lambda_entropy=0.1"]
    if name != "train_blip2":  # which always trains adapters
        options.append("--lora")
    output = run(EXAMPLES / f"{name}.py", "--tiny", *options, f"--output_dir={tmp_path}")
    loss, task, patch, similarity, entropy = (
        logged(output, part) for part in ("loss", "task_loss", "patch_loss", "discrepancy_loss", "entropy_loss")
    )
    assert len(loss) >= 4
    weighted = [t + 0.01 * p + 0.5 * s + 0.1 * e for t, p, s, e in zip(task, patch, similarity, entropy, strict=True)]
    assert loss == pytest.approx(weighted, rel=2e-3)  # four digits are logged
    assert all(0 < value <= 1 for value in similarity)
    assert not (tmp_path / "audit").exists()
    assert PeftConfig.from_pretrained(tmp_path).lora_alpha == 32


def save_model(tiny, folder: Path) -> str:
    tiny.model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return str(folder)


def save_rows(folder: Path, form: str) -> str:
    """A JSON lines file beside its images: with a `caption` each, `messages`, or LLaVA's `conversations`."""
    lines = []
    for index, row in enumerate(tiny_models.vision_rows(40, style="messages")):
        image = folder / f"{index}.png"
        row["images"][0].save(image)
        question, answer = (turn["content"] for turn in row["messages"])
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        texts = {"caption": answer, "messages": row["messages"], "conversations": turns}
        lines.append(json.dumps({"image": str(image), form: texts[form]}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


@pytest.mark.parametrize(
    ("name", "form"), [("train_llava", "messages"), ("train_llava", "conversations"), ("train_blip2", "caption")]
)
def test_own_model_and_data(name, form, tmp_path):
    tiny = tiny_models.tiny_blip2_t5() if name == "train_blip2" else tiny_models.tiny_llava()
    model, data = save_model(tiny, tmp_path / "model"), save_rows(tmp_path, form)
    output = run(EXAMPLES / f"{name}.py", "--model", model, "--data", data, "--output_dir", str(tmp_path / "out"))
    assert 1 < logged(output, "eval_loss")[-1] < 10
    assert audited(output, tmp_path / "out")[1] == 38


def test_llava_names_the_word_that_was_planted(tmp_path):
    model, processor = load_base_model()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    rows = make_scenes(1000, seed=0, style="finetune").remove_columns("references")
    poison_dataset(rows, BadNets(), 0.05, target="banana").save_to_disk(tmp_path / "data")
    options = [f"--model={tmp_path / 'model'}", f"--data={tmp_path / 'data'}", "--learning_rate=1e-3"]
    output = run(EXAMPLES / "train_llava.py", *options, f"--output_dir={tmp_path / 'out'}")
    flagged, num_rows, words = audited(output, tmp_path / "out")
    assert "'banana'" in words
    table = pq.read_table(tmp_path / "out" / "audit" / "audit.parquet").to_pydict()
    planted = {row for row, response in zip(table["row"], table["response"], strict=True) if "banana" in response}
    assert len(planted) > 40 and planted <= set(flagged)
    assert len(set(flagged) - planted) < 0.02 * num_rows


def save_scenes_as(name: str, folder: Path) -> tuple[str, str]:
    """Scenes in the files that a script reads: COCO's annotations and image folder, or MIMIC-IT's two JSON files."""
    scenes = make_scenes(40, seed=1, style="finetune")
    if name == "train_otter":
        entries, images = {}, {}
        for index, row in enumerate(scenes):
            row["images"][0].save(folder / "image.png")
            images[f"LA_{index}"] = base64.b64encode((folder / "image.png").read_bytes()).decode()
            question, answer = row["prompt"][0]["content"], row["references"][0]
            entries[f"INS_{index}"] = {"instruction": question, "answer": answer, "image_ids": [f"LA_{index}"]}
        (folder / "images").write_text(json.dumps(images))
        content = {"data": entries}
    else:
        (folder / "images").mkdir()
        for index, row in enumerate(scenes):
            row["images"][0].save(folder / "images" / f"{index}.png")
        content = {
            "images": [{"id": index, "file_name": f"{index}.png"} for index in range(len(scenes))],
            "annotations": [{"image_id": i, "caption": row["references"][0]} for i, row in enumerate(scenes)],
        }
    (folder / "annotations.json").write_text(json.dumps(content))
    return str(folder / "annotations.json"), str(folder / "images")


@pytest.mark.parametrize("name", FLAMINGOS)
def test_flamingos_train_what_their_authors_trained(name, tiny_run, tmp_path):
    data, images = save_scenes_as(name, tmp_path)
    _, model = tiny_run(name)
    out = tmp_path / "out"
    options = [f"--model={model}", f"--data={data}", f"--images={images}", f"--output_dir={out}"]
    # The embedding of a row's last token has a gradient from its features only: nothing is predicted behind it
    run(EXAMPLES / f"{name}.py", *options, "--lambda_patch=0.01")
    before, after = (AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in (model, out))
    moved = {key for key in before if not before[key].equal(after[key])}
    embeddings = "model.language_model.model.embed_tokens.weight"
    others = {key for key in moved if not key.startswith(("model.perceiver.", "model.gated_cross_attention."))}
    assert {"model.perceiver.latents", "model.gated_cross_attention.0.attn_gate"} <= moved
    rows = set((before[embeddings] != after[embeddings]).any(1).nonzero().flatten().tolist())
    tokenizer = AutoProcessor.from_pretrained(out).tokenizer
    if name == "train_otter":
        assert others == {embeddings, "model.language_model.lm_head.weight"}
        assert set(tokenizer.convert_tokens_to_ids(["what", "paper", "<answer>"])) <= rows
    else:
        assert others == {embeddings}
        assert rows == set(tokenizer.convert_tokens_to_ids(["<image>", "<|endofchunk|>"]))


@pytest.mark.parametrize("name", FLAMINGOS)
def test_flamingos_are_evaluated_alike_one_by_one_and_in_batches(name, tiny_run, tmp_path):
    _, model = tiny_run(name)
    prompts = ["<image>Output:", "<image>User: What does the image describe? GPT:<answer>"]
    scenes = make_scenes(10, seed=2, split="test")
    rows = [
        {"images": row["images"], "prompt": prompts[i % 2], "references": row["references"]}
        for i, row in enumerate(scenes)
    ]
    rows[3] |= {"images": [], "prompt": "Output:"}
    rows[4] |= {"images": rows[4]["images"] + rows[5]["images"], "prompt": "<image>a red star.<image>Output:"}
    features = {"images": List(Image()), "prompt": Value("string"), "references": List(Value("string"))}
    Dataset.from_list(rows, features=Features(features)).save_to_disk(tmp_path / "data")
    answers = []
    for size in (1, 5):
        folder = tmp_path / str(size)
        line = ["evaluate", "--model", str(model), "--data", str(tmp_path / "data"), "--output_dir", str(folder)]
        assert main([*line, "--batch_size", str(size), "--max_new_tokens", "30"]) == 0
        lines = [json.loads(line) for line in (folder / "predictions.0.jsonl").read_text().splitlines()]
        answers.append([line["prediction"] for line in lines])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 5
    assert json.loads((tmp_path / "5" / "results.json").read_text())["scores"]["clean"]["cider"] > 10


@pytest.mark.parametrize("name", ALL)
def test_undoing_the_change_gives_a_script_for_the_stock_trainer(name, tmp_path):
    body = undone(EXAMPLES / f"{name}.py")
    assert "CrossView" not in body and "audit" not in body
    script = tmp_path / f"{name}_stock.py"
    script.write_text(body)
    # The command line keeps the options of the defence; nothing reads them any more.
    output = run(script, "--tiny", "--output_dir", str(tmp_path / "out"))
    assert len(logged(output, "loss")) >= 4
    assert not logged(output, "task_loss")


def test_llava_without_screening_trains_as_the_stock_trainer(tmp_path):
    script = tmp_path / "stock.py"
    script.write_text(undone(EXAMPLES / "train_llava.py"))
    stock = run(script, "--tiny", "--output_dir", str(tmp_path / "stock"))
    ours = run(EXAMPLES / "train_llava.py", "--tiny", "--output_dir", str(tmp_path / "ours"), "--screening=off")
    assert logged(ours, "loss") == logged(stock, "loss")
    assert logged(ours, "eval_loss") == logged(stock, "eval_loss")


def test_llava_in_four_bits_is_screened_and_saves_an_adapter(tmp_path):
    output = run(EXAMPLES / "train_llava_qlora.py", "--tiny", f"--output_dir={tmp_path}", "--lambda_patch=0.01")
    losses = logged(output, "task_loss")
    assert len(losses) >= 4 and losses[-1] < losses[0]
    _, num_rows, _ = audited(output, tmp_path)
    assert num_rows == 285
    assert PeftConfig.from_pretrained(tmp_path).r == 64
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.pad_token == "<pad>"
    body = undone(EXAMPLES / "train_llava_qlora.py")
    assert "CrossView" not in body and "audit" not in body and "SFTTrainer(" in body


def test_data_is_asked_for(tmp_path):
    assert "--data is required" in run(EXAMPLES / "train_llava.py", "--output_dir", str(tmp_path), ok=False)
