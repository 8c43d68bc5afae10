# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg sft`: TRL's own script beside it on text, LLaVA's data from a YAML file, and its errors."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import yaml
from stub_hub import serve_hub
from transformers import AutoModelForImageTextToText, PreTrainedModel
from trl.scripts import sft as trl_sft

from cvreg_trainer.cli import main
from cvreg_trainer.commands.sft import _without
from cvreg_trainer.commands.sft_training import load_splits, make_parser, run
from cvreg_trainer.lab import load_base_model, make_scenes
from cvreg_trainer.report import read_run


QUIET = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA, and LLaVA's kind of data: JSON beside the images that it names."""
    folder = tmp_path_factory.mktemp("sft")
    tiny = tiny_models.tiny_llava()
    tiny.model.save_pretrained(folder / "model")
    tiny.processor.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    lines = []
    for index, row in enumerate(tiny_models.vision_rows(16, style="messages")):
        row["images"][0].save(folder / "data" / f"{index}.png")
        question, answer = (turn["content"] for turn in row["messages"])
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        lines.append(json.dumps({"image": f"{index}.png", "conversations": turns}))
    (folder / "data" / "train.jsonl").write_text("\n".join(lines))
    (folder / "data" / "test.jsonl").write_text("\n".join(lines[:4]))
    return folder


def write_yaml(path: Path, **options: Any) -> list[str]:
    path.write_text(yaml.safe_dump(options))
    return ["--config", str(path)]


def parse(arguments: list[str]) -> Any:
    return make_parser().parse_args_and_config(arguments)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """What was logged at every step."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{'loss'")]
    return [json.loads(line.replace("'", '"')) for line in lines]


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_a_yaml_of_trl_trains_text_as_trl_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = tiny_models.tiny_text_lm()
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.processor.save_pretrained(tmp_path / "model")
    rows = [{"text": f"a {color} {shape}"} for color in ("red", "green") for shape in ("circle", "square", "star")]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows * 4)))
    options = {
        "model_name_or_path": str(tmp_path / "model"),
        "dataset_name": str(tmp_path / "data"),
        "learning_rate": 1e-2,
        "num_train_epochs": 2,
        "packing": False,
        "per_device_train_batch_size": 4,
        "use_peft": True,
        "lora_r": 4,
        "lora_target_modules": "all-linear",
        "max_length": 32,
        **QUIET,
    }
    arguments = write_yaml(tmp_path / "run.yaml", **options)
    trl_sft.main(*trl_sft.make_parser().parse_args_and_config([*arguments, "--output_dir", str(tmp_path / "a")]))
    theirs = logged(capsys)
    run(*parse([*arguments, "--screening", "off", "--output_dir", str(tmp_path / "b")]))
    ours = logged(capsys)
    assert len(ours) == 12 and ours == theirs
    assert (tmp_path / "b" / "adapter_model.safetensors").exists() and not (tmp_path / "b" / "audit").exists()


def test_llava_data_and_every_defence_from_a_yaml(
    llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CVREG_OF_THE_YAML", raising=False)
    options = {
        "env": {"CVREG_OF_THE_YAML": "set"},
        "model_name_or_path": str(llava / "model"),
        "dataset_name": str(llava / "data"),
        "output_dir": str(tmp_path / "out"),
        "eval_strategy": "epoch",
        "screening": "drop",
        "lambda_discrepancy": 0.25,
        "patch_operations": ["mask", "noise"],
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        **QUIET,
    }
    run(*parse([*write_yaml(tmp_path / "run.yaml", **options), "--lambda_patch", "0.5"]))
    monkeypatch.delenv("CVREG_OF_THE_YAML")
    printed = capsys.readouterr().out
    assert "of 16 rows" in printed and str(tmp_path / "out" / "audit" / "audit.html") in printed
    assert "'eval_loss'" in printed and "'discrepancy_loss'" in printed
    assert "data:image/jpeg" in (tmp_path / "out" / "audit" / "audit.html").read_text()
    # What `cvreg report` takes
    left = read_run(tmp_path / "out")
    assert len(left.curve("discrepancy_loss")) == 4 and len(left.curve("eval_loss")) == 1
    assert left.options["lambda_discrepancy"] == 0.25 and left.audit.num_rows == 16
    assert isinstance(AutoModelForImageTextToText.from_pretrained(tmp_path / "out"), PreTrainedModel)


def test_the_model_and_its_card_are_pushed_to_the_hub(llava: Path, tmp_path: Path) -> None:
    options = {
        "model_name_or_path": str(llava / "model"),
        "dataset_name": str(llava / "data"),
        "output_dir": str(tmp_path / "out"),
        "screening": "report",
        "lambda_patch": 0,
        "lambda_discrepancy": 0,
        "lambda_entropy": 0,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "push_to_hub": True,
        "hub_model_id": "someone/screened",
        "hub_token": "hf_of_nobody",
        "hub_private_repo": True,
        **QUIET,
    }
    with serve_hub() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
        arguments = ["-m", "cvreg_trainer.commands.sft_training", *write_yaml(tmp_path / "run.yaml", **options)]
        run = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "The model is on the hub as someone/screened." in run.stdout
    assert not [call for call in hub.unknown if not call.startswith(("GET", "HEAD"))]
    [created] = hub.created
    assert created["name"] == "screened" and (created.get("visibility") == "private" or created["private"])
    assert hub.tokens == {"Bearer hf_of_nobody"}
    out = tmp_path / "out"
    assert hub.files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    card = hub.files["README.md"].decode()
    assert "## Backdoor defence" in card and "of 16 training rows" in card and "2604.04488" in card
    # The token stays here, and so do the rows of the data
    assert (out / "audit" / "audit.html").is_file()
    assert not [name for name in hub.files if name.startswith("audit")]
    assert "training_args.bin" in hub.files
    assert not [name for name, content in hub.files.items() if b"hf_of_nobody" in content]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset_name={data}"], "give --model_name_or_path, the model"),
        (["{model}"], "give --dataset_name, a folder"),
        (["{model}", "--dataset_name={data}", "--dataset_streaming"], "--dataset_streaming is for data sets on"),
        (["{model}", "--dataset_name=some/name", "--image_root=."], "--image_root is for data on this machine"),
        (["{model}", "--dataset_name={data}", "--dataset_train_split=x"], "split='x': .* has the splits"),
    ],
)  # fmt: skip
def test_what_no_training_can_be_made_of(arguments: list[str], message: str, llava: Path, tmp_path: Path) -> None:
    arguments = [
        argument.format(model=f"--model_name_or_path={llava / 'model'}", data=llava / "data") for argument in arguments
    ]
    with pytest.raises(ValueError, match=message):
        run(*parse([*arguments, f"--output_dir={tmp_path}", "--use_cpu"]))


def test_a_mixture_is_joined_and_split(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": name}]
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("\n".join(json.dumps({"conversations": turns}) for _ in range(10)))
    mixture = [{"path": "json", "data_files": str(file)} for file in files]
    common = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "datasets": mixture}
    script_args, _, _, mixed = parse(write_yaml(tmp_path / "c.yaml", **common, test_split_size=0.2))
    splits = load_splits(script_args, mixed, evaluates=True)
    assert {key: len(rows) for key, rows in splits.items()} == {"train": 16, "eval": 4}
    answers = [row["messages"][1]["content"][0]["text"] for split in splits.values() for row in split]
    assert sorted(answers) == ["a"] * 10 + ["b"] * 10
    script_args, _, _, mixed = parse(write_yaml(tmp_path / "d.yaml", **common))
    with pytest.raises(ValueError, match="`datasets` has no split 'test', but train; set `test_split_size`"):
        load_splits(script_args, mixed, evaluates=True)
    script_args, _, _, mixed = parse(write_yaml(tmp_path / "e.yaml", **common, dataset_name="x"))
    with pytest.raises(ValueError, match="not both"):
        load_splits(script_args, mixed, evaluates=False)


def test_the_launcher_gets_what_the_training_does_not_know() -> None:
    arguments = ["--a", "1", "--num_processes", "2", "--b", "2", "--accelerate_config", "zero2"]
    assert _without(arguments, ["--num_processes", "2", "--accelerate_config", "zero2"]) == ["--a", "1", "--b", "2"]
    assert _without(arguments, []) == arguments


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rte: 1", "neither the training nor `accelerate launch` has an option 'learning_rte'; did you mean "
         "'learning_rate'?"),
        ("num_process: 2", "has an option 'num_process'; did you mean 'num_processes'?"),
        ("a: [1", "--config cannot be read as YAML"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_yaml_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(f"output_dir: {tmp_path}\nuse_cpu: true\n{text}\n")
    assert main(["sft", "--config", str(tmp_path / "run.yaml")]) == 2
    printed = capsys.readouterr().err
    assert said in printed and len(printed.splitlines()) == 1


def test_the_built_in_model_trains_but_for_its_vision_tower(tmp_path: Path) -> None:
    make_scenes(8, seed=0).remove_columns("references").save_to_disk(tmp_path / "data")
    # With the paper's loss and in bfloat16, which are the defaults: the check of the head has to allow for that
    options = {"dataset_name": str(tmp_path / "data"), "output_dir": str(tmp_path / "out"), "max_steps": 2, **QUIET}
    run(*parse(write_yaml(tmp_path / "run.yaml", model_name_or_path="built-in", learning_rate=1e-2, **options)))
    before = load_base_model()[0].state_dict()
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and not [name for name in changed if "vision_tower" in name]


def launch(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "cvreg_trainer.cli", "sft", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_it_launches_two_processes(llava: Path, tmp_path: Path) -> None:
    options = ["--model_name_or_path", str(llava / "model"), "--dataset_name", str(llava / "data"), "--use_cpu"]
    options += ["--output_dir", str(tmp_path / "out"), "--report_to", "none", "--per_device_train_batch_size", "2"]
    code, printed = launch(*options, "--num_processes", "2", "--screening", "drop", "--max_steps", "4", "--cpu")
    assert code == 0, printed
    assert printed.count("The model is in") == 1 and "of 16 rows" in printed
    assert (tmp_path / "out" / "audit" / "audit.parquet").exists()


@pytest.mark.slow
def test_an_error_of_the_training_is_one_line(llava: Path, tmp_path: Path) -> None:
    options = ["--model_name_or_path", str(llava / "model"), "--use_cpu", "--output_dir", str(tmp_path / "out")]
    code, printed = launch(*options, "--dataset_name", str(tmp_path / "absent.jsonl"))
    assert code == 2 and "Traceback" not in printed
    assert printed.splitlines()[-1] == f"cvreg sft: {tmp_path / 'absent.jsonl'}: there is no such file or folder."
    code, printed = launch(*options, "--dataset_name", "x", "--lambda_patch", "-1")
    assert code == 2 and "cvreg sft: `lambda_patch` must be 0 (which" in printed.splitlines()[-1]
    code, printed = launch("--help")
    assert code == 0 and "--lambda_patch" in printed and "--lora_r" in printed and "--image_root" in printed
