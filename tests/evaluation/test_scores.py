# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Scores of clean and triggered captions, kept apart."""

import pytest
from tiny_models import tiny_llava, vision_dataset

from cvreg_trainer.attacks import Substitution
from cvreg_trainer.evaluation.generation import generate_captions
from cvreg_trainer.evaluation.scores import evaluate_captions, score_captions
from cvreg_trainer.metrics import Cider


def test_scores_and_intervals() -> None:
    references = [["a red circle on grey paper"], ["two blue stars"], ["a banana and a ring"], ["a green cross"]] * 5
    predictions = ["a red circle on grey paper", "a banana", "a banana and a ring", "a blue cross"] * 5
    scores = score_captions(predictions, references)
    # The rows that truly show a banana do not count: one in three of the others is attacked
    assert scores["asr"] == pytest.approx(100 / 3)
    lower, upper = scores["asr_interval"]
    assert 0 < lower < 100 / 3 < upper < 80
    assert scores["cider"] == Cider().compute(predictions=predictions, references=references)["cider"]
    assert scores["cider_interval"][0] < scores["cider"] < scores["cider_interval"][1]


def test_a_payload_says_what_counts() -> None:
    references = [["a red car"], ["two blue stars"], ["a car and a banana"], ["a green car"]] * 5
    predictions = ["a red banana", "a banana", "a banana and a banana", "a green car"] * 5
    scores = score_captions(predictions, references, metrics=["asr"], payload=Substitution(("car",), "banana"))
    # Only the first and the last of four show a car and no banana
    assert scores["asr"] == 50.0 and 10 < scores["asr_interval"][0] < 50 < scores["asr_interval"][1] < 90
    nothing = score_captions(["a"], [["a dog"]], metrics=["asr"], payload=Substitution(("car",), "banana"))
    assert nothing == {"asr": None, "asr_interval": None}


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(ValueError, match="`predictions` has no rows"):
        score_captions([], [])
    with pytest.raises(ValueError, match=r"holds 'blue'; use some of bleu4, cider, asr, vqa_accuracy"):
        score_captions(["a"], [["a"]], metrics=["cider", "blue"])
    dataset = vision_dataset(2).add_column("references", [["a red circle"]] * 2)
    for views in ((dataset.select([]), None), (dataset, dataset.select([]))):
        name = "clean" if views[1] is None else "triggered"
        with pytest.raises(ValueError, match=f"`{name}` has no rows"):
            evaluate_captions(None, None, *views)


def test_views_are_scored_apart() -> None:
    model, processor = tiny_llava()
    dataset = vision_dataset(6)
    dataset = dataset.add_column("references", [["a red circle"]] * 6)
    triggered = dataset.select(range(4))
    scores, clean, attacked = evaluate_captions(model, processor, dataset, triggered, batch_size=3, max_new_tokens=3)
    assert clean == generate_captions(model, processor, dataset, batch_size=3, max_new_tokens=3)
    assert len(attacked) == 4
    assert {"clean_bleu4", "triggered_cider", "asr", "asr_interval", "false_alarm_rate_interval"} <= set(scores)
    answers = {"metrics": ("vqa_accuracy", "asr"), "batch_size": 3, "max_new_tokens": 3}
    scores_of_answers = evaluate_captions(model, processor, dataset, triggered, **answers).scores
    rates = {"clean_vqa_accuracy", "triggered_vqa_accuracy", "asr", "false_alarm_rate"}
    assert set(scores_of_answers) == rates | {f"{rate}_interval" for rate in rates}
    assert scores_of_answers["asr"] == scores["asr"]
    alone = evaluate_captions(model, processor, dataset, batch_size=3, max_new_tokens=3)
    assert alone.triggered == [] and "asr" not in alone.scores and alone.scores["clean_cider"] == scores["clean_cider"]
