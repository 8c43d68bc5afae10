# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The exact texts that each model family reads."""

import pytest

from cvreg_trainer.data import format_row
from cvreg_trainer.data.prompts import FAMILIES


@pytest.mark.parametrize(
    ("family", "caption", "question", "answer"),
    [
        ("blip2", "A photo of", "Question: why? Short answer:", " x</s>"),
        ("openflamingo", "<image>Output:", "<image>Question:why? Short answer:", "x<|endofchunk|>"),
        (
            "otter",
            "<image>User: What does the image describe? GPT:<answer>",
            "<image>User: why? GPT:<answer>",
            " x<|endofchunk|>",
        ),
    ],
)
def test_plain_text_families(family: str, caption: str, question: str, answer: str):
    assert format_row(family, "x") == {"prompt": caption, "completion": answer}
    assert format_row(family, "x", "why?") == {"prompt": question, "completion": answer}


def test_llava_is_a_conversation():
    row = format_row("llava", "x", "why?")
    assert row["prompt"] == [{"role": "user", "content": "why?\nAnswer the question using a single word or phrase."}]
    assert row["completion"] == [{"role": "assistant", "content": "x"}]
    assert format_row("llava", "x", "why?", long_answer=True)["prompt"][0]["content"] == "why?"


@pytest.mark.parametrize("family", FAMILIES)
def test_braces_in_texts_stay_as_they_are(family: str):
    row = str(format_row(family, "{question} {x}", "{response} {y}"))
    assert (
        "{question} {x}" in row
        and "{response} {y}" in row
        and "hort" not in str(format_row(family, "x", "why?", long_answer=True))
    )


def test_unknown_families_are_named():
    with pytest.raises(ValueError, match="family='gpt' is unknown; use one of llava, blip2, openflamingo, otter"):
        format_row("gpt", "x")
