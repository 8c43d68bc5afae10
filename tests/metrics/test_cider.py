# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvreg_trainer.metrics import Cider
from cvreg_trainer.metrics.cider import cider_d


CASES = json.loads((Path(__file__).parent / "golden_captions.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_equals_the_coco_code(case: dict[str, Any]):
    result = Cider(tokenizer=str.split).compute(
        predictions=case["predictions"], references=case["references"], return_per_item=True
    )
    assert result["cider"] / 100 == pytest.approx(case["cider"], rel=0, abs=1e-9)
    assert [value / 100 for value in result["cider_per_item"]] == pytest.approx(
        case["cider_per_item"], rel=0, abs=1e-9
    )


def written_out(predictions: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """CIDEr-D as loops over the definition: dictionaries of TF-IDF weights, one order at a time."""

    def ngrams(words: list[str], order: int) -> Counter:
        return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))

    scores = []
    for prediction, group in zip(predictions, references, strict=True):
        total = 0.0
        for reference in group:
            for order in (1, 2, 3, 4):
                frequency = Counter(
                    g for others in references for g in set().union(*(ngrams(r, order) for r in others))
                )

                def weigh(words: list[str], order: int = order, frequency: Counter = frequency) -> dict:
                    size = len(references)
                    return {g: n * math.log(size / max(1, frequency[g])) for g, n in ngrams(words, order).items()}

                p, r = weigh(prediction), weigh(reference)
                norm = math.hypot(*p.values()) * math.hypot(*r.values())
                cosine = sum(min(p.get(g, 0.0), r[g]) * r[g] for g in r) / norm if norm else 0.0
                delta = max(len(prediction) - 1, 0) - max(len(reference) - 1, 0)
                total += cosine * math.exp(-(delta**2) / 72) / 4
        scores.append(10 * total / len(group))
    return scores


def test_equals_the_definition_written_out():
    rng = np.random.default_rng(0)

    def draw() -> list[str]:
        return [f"w{int(rng.integers(0, 12))}" for _ in range(int(rng.integers(0, 9)))]

    predictions = [draw() for _ in range(25)]
    references = [[draw() for _ in range(int(rng.integers(1, 5)))] for _ in range(25)]
    np.testing.assert_allclose(cider_d(predictions, references), written_out(predictions, references), atol=1e-12)


def test_equal_captions_give_1000_and_a_single_item_0():
    captions = ["a red bus on the street", "two dogs play in snow", "a man eats pizza"]
    assert Cider().compute(predictions=captions, references=[[c] for c in captions])["cider"] == pytest.approx(1000)
    assert Cider().compute(predictions=captions[:1], references=[captions[:1]]) == {"cider": 0.0}


def test_order_of_items_and_references_does_not_matter():
    case = CASES[1]
    forward = Cider(tokenizer=str.split).compute(
        predictions=case["predictions"], references=case["references"], return_per_item=True
    )
    backward = Cider(tokenizer=str.split).compute(
        predictions=case["predictions"][::-1],
        references=[group[::-1] for group in case["references"][::-1]],
        return_per_item=True,
    )
    np.testing.assert_allclose(forward["cider_per_item"], backward["cider_per_item"][::-1], atol=1e-9)
    assert forward["cider"] == pytest.approx(np.mean(forward["cider_per_item"]))


def test_texts_without_words():
    assert Cider().compute(predictions=["", "."], references=[["", "..."], ["!"]]) == {"cider": 0.0}
    assert Cider().compute(predictions=["", "a dog"], references=[["a cat"], ["a dog"]])["cider"] > 0
