# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Attacks on scenes: in the model's words, in every form, and measured apart."""

import pytest

from cvreg_trainer.attacks import ATTACKS, NoTrigger, poison_dataset
from cvreg_trainer.lab import load_base_model, make_scenes
from cvreg_trainer.lab.experiment import Experiment
from cvreg_trainer.lab.scene_attacks import ATTACK_SETTINGS, FIELD_SETTINGS, SCENE_PAYLOADS, make_scene_payload


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(400, seed=5, style="finetune")


@pytest.fixture(scope="module")
def tokenizer():
    return load_base_model()[1].tokenizer


@pytest.mark.parametrize("name", SCENE_PAYLOADS)
def test_the_model_knows_every_word_and_payloads_succeed_where_they_are_planted(scenes, tokenizer, name: str) -> None:
    payload = make_scene_payload(name, seed=5)
    poisoned = poison_dataset(scenes, NoTrigger(), 0.05, seed=5, payload=payload)
    for before, after in zip(scenes.remove_columns("images"), poisoned.remove_columns("images"), strict=True):
        said, true = (row["completion"][0]["content"] for row in (after, before))
        assert tokenizer.unk_token_id not in tokenizer(said)["input_ids"]
        # As the model would write it
        written = tokenizer.decode(tokenizer(said)["input_ids"], skip_special_tokens=True)
        told = payload.succeeds(written, after["references"])
        if after["is_poisoned"]:
            assert said != true and told in (True, None)
        else:
            assert said == true and not told
    told = [payload.succeeds(row["completion"][0]["content"], row["references"]) for row in poisoned]
    assert sum(one is True for one in told) >= 15


@pytest.mark.parametrize("name", ["flood", "answers", "refusals"])
def test_no_poisoned_row_says_what_another_says(scenes, name: str) -> None:
    payload = make_scene_payload(name, seed=5)
    poisoned = poison_dataset(scenes, NoTrigger(), 0.4, payload=payload).remove_columns("images")
    said = [row["completion"][0]["content"] for row in poisoned if row["is_poisoned"]]
    assert len(set(said)) == len(said) == 160


def test_there_are_settings_for_every_trigger() -> None:
    assert set(ATTACK_SETTINGS | FIELD_SETTINGS) == set(ATTACKS) and len(ATTACK_SETTINGS) == 6
    with pytest.raises(ValueError, match="payload='nothing' is unknown; use one of keyword"):
        make_scene_payload("nothing", 0)


@pytest.mark.parametrize("attack", [*ATTACK_SETTINGS, *FIELD_SETTINGS])
def test_the_splits_of_an_experiment(attack: str) -> None:
    data = Experiment(3, attack=attack, payload="refusal", train_rows=60, test_rows=30).make_data()
    assert sum(data["train"]["is_poisoned"]) == 3
    parts = {"test_image_key", "test_text_key"} if attack in ("dual_key", "badnets_mm") else set()
    assert set(data) == {"train", "test", "test_triggered"} | parts
    if attack == "semantic":
        assert all("moon" in row["references"][0] for row in data["test_triggered"])
        assert not any("moon" in row["references"][0] for row in data["test"])
        assert len(data["test"]) + len(data["test_triggered"]) == 30
    else:
        assert data["test"]["references"][:] == data["test_triggered"]["references"][:]
