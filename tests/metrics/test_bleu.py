# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import json
import math
from pathlib import Path
from typing import Any

import evaluate
import pytest
import sacrebleu

from cvreg_trainer.metrics import Bleu4, Cider


CASES = json.loads((Path(__file__).parent / "golden_captions.json").read_text(encoding="utf-8"))["cases"]
PREDICTIONS = ["A red bus on the street.", "two dogs play in the snow", "a cat"]
REFERENCES = [["a red bus on a street", "A bus"], ["Two dogs playing in the snow."], ["a cat sits", "one cat", "cat"]]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_equals_the_coco_code(case: dict[str, Any]):
    result = Bleu4(tokenizer=str.split).compute(
        predictions=case["predictions"], references=case["references"], return_per_item=True
    )
    assert result["bleu4"] / 100 == pytest.approx(case["bleu4"], rel=0, abs=1e-10)
    assert [value / 100 for value in result["bleu4_per_item"]] == pytest.approx(
        case["bleu4_per_item"], rel=0, abs=1e-10
    )


@pytest.mark.parametrize("name", ["five references", "uneven references", "some predictions empty"])
def test_equals_sacrebleu_where_4_grams_match(name: str):
    """sacrebleu's corpus score on the same tokens, with uneven references padded by None."""
    case = next(case for case in CASES if case["name"] == name)
    width = max(map(len, case["references"]))
    padded = [[group[i] if i < len(group) else None for group in case["references"]] for i in range(width)]
    expected = sacrebleu.corpus_bleu(case["predictions"], padded, tokenize="none", smooth_method="none").score
    result = Bleu4(tokenizer=str.split).compute(predictions=case["predictions"], references=case["references"])
    assert result["bleu4"] / 100 == pytest.approx(expected / 100, rel=0, abs=1e-8)


def test_text_is_tokenised_by_default():
    raw = Bleu4().compute(
        predictions=["A dog's bowl (red) isn't here."], references=[["\"a dog's bowl\" (red) isn't here"]]
    )
    assert raw == {"bleu4": pytest.approx(100.0, abs=1e-6)}


@pytest.mark.parametrize("caption", ["一只狗在雪地里玩。", "สุนัขกำลังเล่นหิมะ", "कुत्ता बर्फ में खेल रहा है।"])
def test_equal_captions_in_other_scripts(caption: str):
    assert Bleu4().compute(predictions=[caption], references=[[caption]])["bleu4"] == pytest.approx(100, abs=1e-5)
    other = "两只猫坐在窗户旁边"
    result = Cider().compute(predictions=[caption, other], references=[[caption], [other]])
    assert result == {"cider": pytest.approx(1000)}


def test_shared_characters_count():
    """Of seven characters six are in the reference of eight; n-grams counted by hand."""
    result = Bleu4().compute(predictions=["一只狗在雪地里"], references=[["一只狗在草地里玩"]])
    precision = (6 / 7) * (4 / 6) * (2 / 5) * (1 / 4)
    assert result["bleu4"] == pytest.approx(100 * precision**0.25 * math.exp(1 - 8 / 7))


def test_batches_and_combination_give_the_same():
    whole = Bleu4().compute(predictions=PREDICTIONS, references=REFERENCES)
    cut = Bleu4()
    cut.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    cut.add(prediction=PREDICTIONS[2], reference=REFERENCES[2])
    assert cut.compute() == whole
    combined = evaluate.combine([Bleu4(), Cider()]).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert combined == {**whole, **Cider().compute(predictions=PREDICTIONS, references=REFERENCES)}
    piecewise = evaluate.combine([Bleu4(), Cider()])
    piecewise.add_batch(predictions=PREDICTIONS[:1], references=REFERENCES[:1])
    for prediction, reference in zip(PREDICTIONS[1:], REFERENCES[1:], strict=True):
        piecewise.add(prediction, reference)
    assert piecewise.compute() == combined


def test_one_reference_may_be_a_string():
    metric = Bleu4()
    assert metric.compute(predictions=["a b c d"], references=["a b c d e"]) == metric.compute(
        predictions=("a b c d",), references=[("a b c d e",)]
    )


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, ValueError, "nothing to score"),
        ({"predictions": [], "references": []}, ValueError, "nothing to score"),
        ({"predictions": ["a"]}, TypeError, "`references` must be a list"),
        ({"predictions": "a", "references": [["a"]]}, TypeError, "`predictions` must be a list"),
        ({"predictions": ["a", "b"], "references": [["a"]]}, ValueError, "2 predictions but references for 1 items"),
        ({"predictions": ["a", "b"], "references": [["a"], []]}, ValueError, r"references\[1\]` is empty"),
        ({"predictions": [7], "references": [["a"]]}, TypeError, "got int at position 0"),
        ({"predictions": ["a"], "references": [[None]]}, TypeError, "got NoneType at position 0"),
    ],
)
def test_errors_name_the_remedy_and_leave_nothing_behind(inputs: dict, error: type[Exception], message: str):
    metric = Bleu4()
    with pytest.raises(error, match=message):
        metric.compute(**inputs)
    expected = Bleu4().compute(predictions=PREDICTIONS, references=REFERENCES)
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES) == expected


def test_needs_no_writable_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The cache folder lies below a file, so that nobody, not even root, could create it."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    metric = Bleu4(cache_dir=str(blocked / "cache"))
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    with pytest.raises(OSError):
        Bleu4(cache_dir=str(blocked / "cache"), keep_in_memory=False)
