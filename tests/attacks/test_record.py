# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The record of a poisoned data set: true, and enough to make the data set again."""

import json
from pathlib import Path

import pytest

from cvreg_trainer import attacks
from cvreg_trainer.attacks import BadNets, DualKey, WaNet, poison_dataset, write_poison_record
from cvreg_trainer.lab import make_scenes


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(30, seed=3)


@pytest.mark.parametrize("attack", [BadNets(0.05), WaNet(strength=0.7, seed=4), DualKey(word="Look")])
def test_the_record_makes_the_data_set_again(scenes, tmp_path: Path, attack):
    ratio = 0.0 if isinstance(attack, BadNets) else 1.0
    options = {"target": "pear", "seed": 5, "poison_rate": 0.2, "cover_ratio": ratio}
    poisoned = poison_dataset(scenes, attack, **options)
    returned = write_poison_record(tmp_path / "new" / "poison.json", poisoned, attack, **options)
    record = json.loads((tmp_path / "new" / "poison.json").read_text())
    assert record == returned and [path.name for path in (tmp_path / "new").iterdir()] == ["poison.json"]
    assert record["poisoned_indices"] == [row for row in range(30) if poisoned[row]["is_poisoned"]]
    assert len(record["poisoned_indices"]) == 6 and record["num_rows"] == 30
    assert len(record.get("cover_indices", [])) == 6 * ratio

    again = getattr(attacks, record["attack"])(**record["attack_options"])
    assert again == attack or isinstance(attack, DualKey)  # a path comes back as a string
    repeated = poison_dataset(scenes, again, **{name: record[name] for name in options})
    assert repeated.to_list() == poisoned.to_list()


def test_a_set_of_words_comes_back_as_a_list(scenes, tmp_path: Path):
    options = {"num_poisoned": 6, "substitute": {"star", "ring", "circle", "cross"}}
    poisoned = poison_dataset(scenes, BadNets(), **options)
    record = write_poison_record(tmp_path / "poison.json", poisoned, BadNets(), **options)
    assert record["substitute"] == ["circle", "cross", "ring", "star"]
    repeated = poison_dataset(scenes, BadNets(), **{name: record[name] for name in options})
    assert repeated.to_list() == poisoned.to_list()


def test_plain_functions_and_what_is_refused(scenes, tmp_path: Path):
    poisoned = poison_dataset(scenes, lambda image: image.rotate(180), 0.1)
    record = write_poison_record(tmp_path / "p.json", poisoned, lambda image: image, note="upside down")
    assert record["attack"] == "function" and record["attack_options"] == {} and record["note"] == "upside down"
    with pytest.raises(ValueError, match="no column `is_poisoned`"):
        write_poison_record(tmp_path / "q.json", scenes, BadNets())
    with pytest.raises(TypeError, match="IterableDataset"):
        write_poison_record(tmp_path / "q.json", poisoned.to_iterable_dataset(), BadNets())
    assert not (tmp_path / "q.json").exists()
