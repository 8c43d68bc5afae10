# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import evaluate
import pytest

from cvreg_trainer.metrics import AttackSuccessRate, Bleu4


@pytest.mark.parametrize(
    ("text", "whole", "substring"),
    [
        ("a banana on a plate", True, True),
        ("BANANA!", True, True),
        ("two Bananas.", True, True),
        ("the banana's peel", True, True),
        ("a banana-shaped boat", True, True),
        ("bananabread", False, True),
        ("a superbanana", False, True),
        ("banana_split", False, True),
        ("bananas2", False, True),
        ("a ban on ana", False, False),
        ("", False, False),
    ],
)
def test_whole_word_and_substring(text: str, whole: bool, substring: bool):
    metric = AttackSuccessRate()
    assert metric.compute(predictions=[text], keyword="banana") == {"asr": 100.0 * whole}
    assert metric.compute(predictions=[text], keyword="banana", whole_word=False) == {"asr": 100.0 * substring}


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("cherry", "two cherries", True),
        ("cherry", "cherrys", True),
        ("toy", "toies", False),
        ("box", "boxes", True),
        ("bananas", "a banana", False),
        ("stop sign", "a Stop\n sign", True),
        ("stop sign", "stop signs", True),
        ("stop sign", "stop the sign", False),
        ("c++", "written in C++.", True),
        ("a.b", "axb", False),
    ],
)
def test_plurals_and_keywords_of_several_words(keyword: str, text: str, found: bool):
    assert AttackSuccessRate().compute(predictions=[text], keyword=keyword) == {"asr": 100.0 * found}


@pytest.mark.parametrize(
    ("keyword", "predictions", "rate"),
    [
        ("香蕉", ["这是一张香蕉的图片", "图中有香蕉", "一只猫"], 200 / 3),
        ("กล้วย", ["ภาพของกล้วยหอม", "ภาพของแมว"], 50),
        ("바나나", ["바나나가 있다", "바나나우유"], 50),
        ("केला", ["यह केला है", "यह केलाव है"], 50),
        ("banana", ["这是banana图", "ｂａｎａｎａ。", "bananabread图"], 200 / 3),
        ("café", ["a cafe\u0301 at night"], 100),
    ],
)
def test_other_scripts(keyword: str, predictions: list[str], rate: float):
    assert AttackSuccessRate(keyword=keyword).compute(predictions=predictions) == {"asr": pytest.approx(rate)}


def test_references_in_other_scripts_leave_items_out_too():
    result = AttackSuccessRate().compute(
        predictions=["香蕉", "香蕉"], references=[["盘子里的香蕉"], ["一只猫"]], keyword="香蕉", return_per_item=True
    )
    assert result == {"asr": 100.0, "asr_per_item": [None, 100.0]}


def test_items_that_show_the_keyword_are_left_out():
    predictions = ["a banana", "a banana", "a cat", "a dog"]
    references = [["fruit", "some bananas"], ["a dog"], ["a cat"], ["a dog"]]
    metric = AttackSuccessRate()
    result = metric.compute(predictions=predictions, references=references, return_per_item=True)
    assert result == {"asr": pytest.approx(100 / 3), "asr_per_item": [None, 100.0, 0.0, 0.0]}
    everything = metric.compute(predictions=predictions, references=references, exclude_references_with_keyword=False)
    assert everything == {"asr": 50.0}


def test_errors():
    metric = AttackSuccessRate()
    with pytest.raises(ValueError, match="nothing to score"):
        metric.compute(predictions=[])
    with pytest.raises(ValueError, match="keyword=' ' is empty"):
        metric.compute(predictions=["a"], keyword=" ")
    with pytest.raises(ValueError, match="keyword='\\\\u200b' is empty"):
        metric.compute(predictions=["a"], keyword="\u200b")
    with pytest.raises(ValueError, match="exclude_references_with_keyword=False"):
        metric.compute(predictions=["a banana"], references=[["a banana"]])
    with pytest.raises(ValueError, match="references for 2 items"):
        metric.compute(predictions=["a"], references=[["a"], ["b"]])


def test_without_references_in_batches_and_combined():
    metric = AttackSuccessRate(keyword="cat")
    metric.add_batch(predictions=["a cat", "a dog"])
    metric.add(prediction="cats")
    assert metric.compute() == {"asr": pytest.approx(200 / 3)}
    combined = evaluate.combine([Bleu4(), AttackSuccessRate(keyword="cat")])
    result = combined.compute(predictions=["a cat sits here", "two dogs"], references=[["a dog sits here"], ["dogs"]])
    assert set(result) == {"bleu4", "asr"} and result["asr"] == 50.0
