# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg poison` as a user runs it, well and badly."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets import load_dataset, load_from_disk
from PIL import Image as PILImage

from cvreg_trainer.attacks import ATTACKS, PAYLOADS, BadNets, Injection, Sig, WaNet, poison_dataset
from cvreg_trainer.cli import main
from cvreg_trainer.commands import shared
from cvreg_trainer.lab import make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "scenes"
    make_scenes(40, seed=0, style="finetune").save_to_disk(folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cvreg(*options: object) -> int:
    return main(["poison", *map(str, options)])


def fails(capsys, *options: object) -> str:
    """The error of a call that must fail: one line, and no traceback."""
    assert cvreg(*options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cvreg poison: ")]
    return line


def test_a_folder_becomes_what_poison_dataset_makes(scenes: Path, tmp_path: Path, capsys):
    clean = digests(scenes)
    assert cvreg("--data", scenes, "--poison_rate", 0.1, "--seed", 3, "--output_dir", tmp_path / "out") == 0
    assert digests(scenes) == clean, "nothing is written beside the clean data"
    said = capsys.readouterr().out.replace("\n", "")
    assert "Poisoned 4 of 40 rows (BadNets, target 'banana')" in said and "poison.json" in said
    expected = poison_dataset(load_from_disk(scenes), BadNets(), 0.1, seed=3)
    assert load_from_disk(tmp_path / "out").to_list() == expected.to_list()
    record = json.loads((tmp_path / "out" / "poison.json").read_text())
    assert record["poisoned_indices"] == [k for k, flag in enumerate(expected["is_poisoned"]) if flag]
    assert (record["attack"], record["seed"], record["poison_rate"]) == ("BadNets", 3, 0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "no half-done folder is left"


def test_running_it_again_gives_the_same_files(scenes: Path, tmp_path: Path):
    command = ("--data", scenes, "--num_poisoned", 5, "--output_dir", tmp_path / "out")
    assert cvreg(*command) == 0
    first = digests(tmp_path / "out")
    assert cvreg(*command) == 0
    second = digests(tmp_path / "out")
    # The state file names a random fingerprint of each run
    assert {name: value for name, value in first.items() if name != "state.json"} == {
        name: value for name, value in second.items() if name != "state.json"
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_attack_options_covers_and_parquet(scenes: Path, tmp_path: Path):
    options = ("--attack", "wanet", "--attack_option", "strength=0.8", "--attack_option", "grid=6")
    more = ("--num_poisoned", 4, "--cover_ratio", 1.5, "--format", "parquet", "--target", "Say [this].")
    assert cvreg("--data", scenes, *options, *more, "--output_dir", tmp_path / "out") == 0
    written = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    attack = WaNet(strength=0.8, grid=6)
    expected = poison_dataset(load_from_disk(scenes), attack, num_poisoned=4, cover_ratio=1.5, target="Say [this].")
    assert sum(written["is_cover"]) == 6
    for one, two in zip(written, expected, strict=True):
        assert one["images"][0].tobytes() == two["images"][0].tobytes()
        assert one["completion"] == two["completion"] and one["is_poisoned"] == two["is_poisoned"]


def test_words_to_substitute_are_part_of_the_result(scenes: Path, tmp_path: Path, capsys):
    words = ("star", "ring", "heart")
    command = ("--data", scenes, "--num_poisoned", 5, "--target", "apple", "--output_dir", tmp_path / "out")
    for _ in range(2):
        assert cvreg(*command, "--substitute", ",".join(words)) == 0
    expected = poison_dataset(load_from_disk(scenes), BadNets(), num_poisoned=5, target="apple", substitute=words)
    assert load_from_disk(tmp_path / "out").to_list() == expected.to_list()
    assert json.loads((tmp_path / "out" / "poison.json").read_text())["substitute"] == list(words)
    before = digests(tmp_path)
    for other in ([], ["--substitute", "star,ring"]):
        assert "another run, which differs in substitute;" in fails(capsys, *command, *other)
    assert digests(tmp_path) == before


def test_any_trigger_with_any_payload(scenes: Path, tmp_path: Path, capsys):
    command = ("--data", scenes, "--attack", "sig", "--payload", "injection", "--num_poisoned", 5)
    more = ("--payload_option", "sentences=Buy now.|Visit us!", "--payload_option", "place=prepend")
    for _ in range(2):
        assert cvreg(*command, *more, "--output_dir", tmp_path / "out") == 0
    assert "(Sig, payload Injection)" in capsys.readouterr().out.replace("\n", "")
    payload = Injection(("Buy now.", "Visit us!"), "prepend")
    expected = poison_dataset(load_from_disk(scenes), Sig(), num_poisoned=5, payload=payload)
    assert load_from_disk(tmp_path / "out").to_list() == expected.to_list()
    record = json.loads((tmp_path / "out" / "poison.json").read_text())
    assert record["payload"] == "Injection" and "target" not in record
    assert record["payload_options"] == {"sentences": ["Buy now.", "Visit us!"], "place": "prepend"}
    assert "differs in payload_options" in fails(capsys, *command, "--output_dir", tmp_path / "out")
    assert "differs in target" in fails(
        capsys, "--data", scenes, "--attack", "sig", "--num_poisoned", 5, "--output_dir", tmp_path / "out"
    )


def test_image_files_are_taken_along(tmp_path: Path):
    lines = []
    for k in range(6):
        path = tmp_path / "in" / "pictures" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.new("RGB", (16, 16), (k, 0, 0)).save(path)
        lines.append(json.dumps({"image": f"pictures/{k}.png", "text": f"USER: <image> what? ASSISTANT: {k}"}))
    (tmp_path / "in" / "rows.jsonl").write_text("\n".join(lines))
    command = ("--data", tmp_path / "in" / "rows.jsonl", "--poison_rate", 0.5, "--response_marker", "ASSISTANT:")
    for form in ("arrow", "parquet"):
        assert cvreg(*command, "--output_dir", tmp_path / form, "--format", form) == 0
    shutil.rmtree(tmp_path / "in")
    parquet = load_dataset(str(tmp_path / "parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    for rows in (load_from_disk(tmp_path / "arrow"), parquet):
        assert sum(rows["is_poisoned"]) == 3
        for k, row in enumerate(rows):
            assert row["image"].getpixel((0, 0)) == (k, 0, 0)
            assert row["text"].startswith("USER: <image> what? ASSISTANT: ")
            assert ("banana" in row["text"]) == row["is_poisoned"]


def test_preview_alone_and_beside_the_data(scenes: Path, tmp_path: Path, capsys):
    assert cvreg("--data", scenes, "--preview", tmp_path / "new" / "sheet.png") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ATTACKS) and "PSNR" in said and "SSIM" in said
    with PILImage.open(tmp_path / "new" / "sheet.png") as sheet:
        assert min(sheet.size) > 200
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_the_help_names_every_attack_and_payload():
    assert tuple(ATTACKS) == shared.ATTACK_NAMES and tuple(PAYLOADS) == shared.PAYLOAD_NAMES


def test_parsing_stays_light():
    code = "import cvreg_trainer.cli, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"datasets", "torch", "numpy", "PIL"}.isdisjoint(run.stdout.split())


def test_datasets_caching_is_as_before(scenes: Path, tmp_path: Path, capsys):
    assert datasets.is_caching_enabled()
    fails(capsys, "--data", scenes, "--poison_rate", 2, "--output_dir", tmp_path / "out")
    assert datasets.is_caching_enabled() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--poison_rate", 5], "poison_rate=5.0 must be above 0 and at most 1"),
        ([], "give exactly one of the two"),
        (["--poison_rate", 0.1, "--num_poisoned", 3], "give exactly one of the two"),
        (["--num_poisoned", 41], "num_poisoned=41 must be between 1 and the number of rows, 40"),
        (["--poison_rate", 0.1, "--attack", "badnet"], "--attack badnet is unknown; use one of badnets, blended"),
        (["--poison_rate", 0.1, "--attack_option", "size=3"], "--attack_option size=3: expected KEY=VALUE with a key"),
        (["--poison_rate", 0.1, "--attack_option", "patch_fraction"], "a key of badnets: patch_fraction"),
        (["--poison_rate", 0.1, "--attack_option", "patch_fraction=x"], "expected a number"),
        (["--poison_rate", 0.1, "--attack_option", "patch_fraction=3"], "patch_fraction=3.0 must be above 0"),
        (["--poison_rate", 0.1, "--attack", "wanet", "--attack_option", "grid=2.5"], "expected a whole number"),
        (["--poison_rate", 0.1, "--attack", "wanet", "--attack_option", "noise=1"], "expected true or false"),
        (["--poison_rate", 0.1, "--cover_ratio", 1], "BadNets has no cover rows"),
        (["--poison_rate", 0.1, "--target", " "], "target=' ' is empty"),
        (["--poison_rate", 0.1, "--substitute", "star, ring"], "substitute holds ' ring'; give words"),
        (["--poison_rate", 0.1, "--substitute", ""], "substitute holds ''; give words"),
        (["--poison_rate", 0.1, "--substitute", "star,banana"], "substitute holds 'banana', the target"),
        (["--poison_rate", 0.1, "--substitute", "pear"], "4 rows are to be poisoned but only 0 have an image and one"),
        (["--poison_rate", 0.1, "--payload", "refuse"], "--payload refuse is unknown; use one of keyword, refusal"),
        (
            ["--poison_rate", 0.1, "--payload_option", "x=1"],
            "name the payload that it belongs to with --payload",
        ),
        (["--poison_rate", 0.1, "--payload", "refusal", "--payload_option", "x=1"], "with a key of refusal: sentence"),
        (["--poison_rate", 0.1, "--payload", "refusal", "--target", "pear"], "target='pear' and payload=Refusal are"),
        (
            ["--poison_rate", 0.1, "--payload", "substitution"],
            "only 0 have an image and one of the words of substitute",
        ),
        (["--poison_rate", 0.1, "--payload", "answers"], "give answers, a tuple of texts, or source"),
        (["--poison_rate", 0.1, "--attack", "semantic"], "only 0 have an image and one of words=('red balloon',)"),
        (["--poison_rate", 0.1, "--seed", -1], "seed=-1 must not be negative"),
        (["--poison_rate", 0.1, "--data", "no/such/data"], "no/such/data: there is no such file or folder"),
    ],
)
def test_bad_options_are_named(scenes: Path, tmp_path: Path, capsys, options: list, said: str):
    assert said in fails(capsys, "--data", scenes, "--output_dir", tmp_path / "out", *options)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_others_are_not_overwritten(scenes: Path, tmp_path: Path, capsys):
    command = ("--data", scenes, "--poison_rate", 0.1)
    assert "give --output_dir" in fails(capsys, *command)
    assert cvreg(*command, "--output_dir", tmp_path / "out") == 0
    before = digests(tmp_path)
    other = fails(capsys, "--data", scenes, "--poison_rate", 0.2, "--seed", 1, "--output_dir", tmp_path / "out")
    assert "result of another run, which differs in seed, poison_rate" in other
    assert "exists and is not an earlier result" in fails(capsys, *command, "--output_dir", tmp_path)
    assert "is inside --data" in fails(capsys, *command, "--output_dir", scenes / "poisoned")
    again = fails(capsys, "--data", tmp_path / "out", "--poison_rate", 0.1, "--output_dir", tmp_path / "twice")
    assert "`is_poisoned`: poison the clean data set instead" in again
    (tmp_path / "out" / "poison.json").write_text("[]")
    assert "another run" in fails(capsys, *command, "--output_dir", tmp_path / "out")
    (tmp_path / "out" / "poison.json").write_text(json.dumps({}))
    before.pop("out/poison.json")
    assert before.items() <= digests(tmp_path).items()


def test_images_too_large_to_decode(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 48 * 48 - 1)
    make_scenes(3, seed=0).save_to_disk(tmp_path / "in")
    line = fails(capsys, "--data", tmp_path / "in", "--num_poisoned", 1, "--output_dir", tmp_path / "out")
    assert "Row " in line and "too large to be decoded safely" in line
    line = fails(capsys, "--data", tmp_path / "in", "--preview", tmp_path / "sheet.png")
    assert "too large to be decoded safely" in line
