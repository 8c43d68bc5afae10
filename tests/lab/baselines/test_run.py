# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Every baseline as a small experiment: what it reports, what it drops, prunes and saves."""

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from cvreg_trainer.collators.seeded_views import SeededViews
from cvreg_trainer.data.rows import copy_row
from cvreg_trainer.evaluation.generation import generate_captions
from cvreg_trainer.lab.baselines import (
    BASELINES,
    DataCollatorForAugmentation,
    DataCollatorForBootstrap,
    run,
    run_baseline,
)
from cvreg_trainer.lab.experiment import Experiment


KEYS = {"clean_cider", "triggered_cider", "asr", "false_alarm_rate", "steps", "seconds_per_step", "peak_memory_mib"}
KEYS |= {"losses", "captions", "seconds"}


@pytest.fixture(scope="module")
def experiment():
    return Experiment(seed=0, poison_rate=0.25, train_rows=40, test_rows=4, num_train_epochs=2)


@pytest.fixture(scope="module")
def data(experiment):
    return experiment.make_data()


@pytest.fixture(autouse=True)
def few_clean_rows(monkeypatch):
    monkeypatch.setattr(run, "CLEAN_ROWS", 8)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(experiment, data, tmp_path):
    with pytest.raises(ValueError, match="'pruning'.*fine_pruning, strip, entropy_filter"):
        run_baseline("pruning", experiment, data, tmp_path)


def test_the_response_filter_trains_on_what_is_left(experiment, data, tmp_path):
    result = run_baseline("response_filter", experiment, data, tmp_path)
    assert result.keys() >= KEYS
    assert result["rows_dropped"] == 16 and result["steps"] == 2 * 3  # 24 rows in batches of 8, twice
    assert 0 <= result["poisoned_rows_dropped"] <= 10
    assert result["seconds"] > result["steps"] * result["seconds_per_step"]


def test_byorn_trains_on_its_own_responses_where_it_doubts(experiment, data, tmp_path, monkeypatch):
    learnt = []
    original = DataCollatorForBootstrap.__init__

    def watch(self, inner, answer):
        def note(rows):
            learnt.extend(row["completion"][0]["content"] for row in rows)
            return inner(rows)

        original(self, note, answer)

    monkeypatch.setattr(DataCollatorForBootstrap, "__init__", watch)
    poisoned = np.array(data["train"]["is_poisoned"])
    monkeypatch.setattr(run, "response_scores", lambda model, processor, rows: poisoned.astype(float))
    result = run_baseline("byorn", experiment, data, tmp_path)
    assert result.keys() >= KEYS and result["steps"] == 2 * 5
    assert (result["rows_replaced"], result["poisoned_rows_replaced"]) == (16, 10)
    own = [messages[0]["content"] for messages in data["train"]["completion"]]
    assert all("banana" in text for text, is_poisoned in zip(own, poisoned, strict=True) if is_poisoned)
    assert len(learnt) >= 80 and not any("banana" in text for text in learnt)
    # The 24 rows that it does not doubt are learnt as they are, in both epochs
    kept = [
        text
        for text, is_doubted in zip(own, run.flag_share(poisoned.astype(float), 0.4), strict=True)
        if not is_doubted
    ]
    assert all(learnt.count(text) >= 2 for text in kept)


@pytest.mark.slow
def test_augmented_training_draws_anew_in_every_epoch_and_repeats_itself(experiment, data, tmp_path, monkeypatch):
    epochs = []
    original = DataCollatorForAugmentation.__call__

    def watch(self, examples):
        if len(examples) > 1:  # not the row that is shown and checked at the start
            epochs.append(self.views.epoch)
        return original(self, examples)

    monkeypatch.setattr(DataCollatorForAugmentation, "__call__", watch)
    first, second = (run_baseline("strong_augmentation", experiment, data, tmp_path) for _ in range(2))
    assert first.keys() >= KEYS
    assert epochs == ([0] * 5 + [1] * 5) * 2
    assert [log["loss"] for log in first["losses"]] == [log["loss"] for log in second["losses"]]
    monkeypatch.setattr(SeededViews, "of_row", lambda self, row, digest: copy_row(row))
    plain = run_baseline("strong_augmentation", experiment, data, tmp_path)
    assert plain["losses"][-1]["loss"] != first["losses"][-1]["loss"]


@pytest.mark.slow
def test_the_pruned_model_is_saved_with_its_units_still_gone(experiment, data, tmp_path):
    result = run_baseline("fine_pruning", experiment, data, tmp_path)
    assert result.keys() >= KEYS and result["steps"] == 2  # 8 clean rows, twice
    before, after = (
        LlavaForConditionalGeneration.from_pretrained(folder) for folder in (tmp_path / "undefended", tmp_path)
    )
    pruned = (after.model.language_model.layers[-1].mlp.down_proj.weight == 0).all(0)
    assert int(pruned.sum()) == round(result["pruned_share"] * len(pruned)) > 0
    assert (before.model.language_model.layers[-1].mlp.down_proj.weight != 0).any(0).all()
    # The tower is frozen, all else was fine-tuned
    same = {name for name, value in after.state_dict().items() if torch.equal(value, before.state_dict()[name])}
    assert same == {name for name in before.state_dict() if "vision_tower" in name}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strip", "entropy_filter"])
def test_filters_by_a_trained_model_start_again_from_the_base_model(experiment, data, tmp_path, name):
    result = run_baseline(name, experiment, data, tmp_path)
    assert result.keys() >= KEYS
    kept = 40 - result["rows_dropped"]
    assert name == "strip" or kept == 36
    assert result["steps"] == 2 * -(-kept // 8)
    assert result["seconds"] > result["steps"] * result["seconds_per_step"]
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    processor = experiment.load_model()[1]
    assert generate_captions(model, processor, data["test"], batch_size=50) == result["captions"]["clean"]


def test_which_rows_a_filter_drops_is_counted(experiment, data, tmp_path, monkeypatch):
    poisoned = np.array(data["train"]["is_poisoned"])
    monkeypatch.setattr(run, "response_scores", lambda model, processor, rows: poisoned.astype(float))
    result = run_baseline("response_filter", experiment, data, tmp_path)
    assert (result["rows_dropped"], result["poisoned_rows_dropped"]) == (16, 10)


def test_every_baseline_is_tried_here():
    rivals = {"fine_pruning", "strip", "entropy_filter", "response_filter", "strong_augmentation"}
    assert set(BASELINES) == rivals | {"byorn"}
