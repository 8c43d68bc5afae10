# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""VqaAccuracy against the definition written out, and the normal form of answers against hand-made pairs."""

import random

import pytest

from cvreg_trainer.metrics import VqaAccuracy, normalize_answer


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Two black/white dogs!", "2 black white dogs"),
        ("none", "0"),
        ("Yes.", "yes"),
        ("2.5 m.", "2.5 m"),
        ("1,000", "1000"),
        ("red, white", "red white"),
        ("red,white", "red white"),
        ("t-shirt", "t shirt"),
        ("t-shirt - blue", "tshirt blue"),  # the customary rule looks at the whole answer
        ("dont know", "don't know"),
        ("couldn'tve", "couldn't've"),
        ("It’s", "it's"),
        ("let's", "let's"),
        ("he lets go", "he lets go"),
        ("  a\n an\tthe ", ""),
        ("anthem of a theatre", "anthem of theatre"),
        ("eleven", "eleven"),
        ("$5?", "$5"),
        ("香蕉。", "香蕉"),
        ("「香 蕉」！", "香蕉"),
        ("红，白", "红白"),
        ("１，０００只", "1000只"),
        ("ＴＷＯ　“dogs”！", "2 dogs"),
        ("केला।", "केला"),
        ("نعم؟", "نعم"),
        ("네.", "네"),
        ("cafe\u0301", "café"),
        ("", ""),
    ],
)
def test_normal_form(answer: str, normal: str):
    assert normalize_answer(answer) == normal
    assert normalize_answer(normal) == normal, "normalising twice changes nothing"


def by_definition(prediction: str, answers: list[str]) -> float:
    """Mean over the subsets without one annotator, each at most 1."""
    subsets = [answers[:left_out] + answers[left_out + 1 :] for left_out in range(len(answers))]
    return sum(min(subset.count(prediction) / 3, 1) for subset in subsets) / len(subsets)


def test_ten_annotators_as_defined():
    rng = random.Random(0)
    groups = [rng.choices(["red", "blue", "green"], k=10) for _ in range(40)] + [
        ["red"] * k + ["x"] * (10 - k) for k in range(11)
    ]
    result = VqaAccuracy().compute(predictions=["red"] * len(groups), references=groups, return_per_item=True)
    expected = [100 * by_definition("red", group) for group in groups]
    assert result["vqa_accuracy_per_item"] == pytest.approx(expected, abs=1e-12)
    assert result["vqa_accuracy"] == pytest.approx(sum(expected) / len(expected), abs=1e-12)


@pytest.mark.parametrize(("matches", "score"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)])
def test_the_known_steps_of_the_scale(matches: int, score: float):
    answers = ["Yes"] * matches + ["no"] * (10 - matches)
    assert VqaAccuracy().compute(predictions=["yes"], references=[answers])["vqa_accuracy"] == pytest.approx(score)


@pytest.mark.parametrize(
    ("answers", "score"), [(["red"], 100), (["blue"], 0), (["red", "red"], 100), (["red", "blue"], 50)]
)
def test_few_annotators(answers: list[str], score: float):
    assert VqaAccuracy().compute(predictions=["Red!"], references=[answers]) == {"vqa_accuracy": score}


def test_a_single_text_stands_for_one_annotator_and_errors_name_the_metric():
    metric = VqaAccuracy()
    assert metric.compute(predictions=["a circle", "no"], references=["Circle", "yes"]) == {"vqa_accuracy": 50.0}
    with pytest.raises(ValueError, match=r"vqa_accuracy: `references\[1\]` is empty"):
        metric.compute(predictions=["a", "b"], references=[["a"], []])
    with pytest.raises(ValueError, match="vqa_accuracy: nothing to score"):
        metric.compute(predictions=[], references=[])
