# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows as tokens, and the order they come in."""

import torch
from tiny_parts import tiny_joined

from cvreg_trainer.data.pictures import Picture, Row
from cvreg_trainer.lab.real_parts.batches import IGNORED, Encoded, collate, encode_row, plan_batches


PICTURE = Picture("tux_paint", "dog", b"", "A dog.")


def row(prompt: int, response: int) -> Encoded:
    return Encoded(Row("caption", (), ()), [7] * prompt, list(range(10, 10 + response)))


def test_a_row_is_written_as_the_processor_writes_it() -> None:
    _, processor = tiny_joined()
    turns = ("What is it?", "a dog", "What kind?", "animals")
    encoded = encode_row(Row("turns", (PICTURE,), turns), processor, patches=4)
    assert processor.tokenizer.decode(encoded.prompt) == (
        "<|im_start|>user\n<image><image><image><image>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\na dog<|im_end|>\n"
        "<|im_start|>user\nWhat kind?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert processor.tokenizer.decode(encoded.response) == "animals<|im_end|>"


def test_two_pictures_and_none() -> None:
    _, processor = tiny_joined()
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    for pictures in ((), (PICTURE, PICTURE)):
        encoded = encode_row(Row("two", pictures, ("What?", "That")), processor, patches=4)
        assert encoded.prompt.count(image) == 4 * len(pictures)


def test_labels_are_the_response_alone() -> None:
    ids, mask, labels = collate([row(3, 2), row(2, 4)], pad=0)
    assert ids.tolist() == [[7, 7, 7, 10, 11, 0], [7, 7, 10, 11, 12, 13]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert labels.tolist() == [[IGNORED] * 3 + [10, 11, IGNORED], [IGNORED] * 2 + [10, 11, 12, 13]]


def test_hidden_words_are_still_to_be_said() -> None:
    rows = [row(20, 30)] * 40
    plain, _, _ = collate(rows, pad=0)
    ids, _, labels = collate(rows, pad=0, hidden=0.25, filler=5, generator=torch.Generator().manual_seed(0))
    changed = ids != plain
    assert (ids[changed] == 5).all() and not changed[:, :20].any()
    assert 0.2 < changed[:, 20:].float().mean() < 0.3
    assert (labels[:, 20:] == plain[:, 20:]).all()


def test_the_plan_takes_every_row_once_an_epoch_and_its_start_does_not_depend_on_its_end() -> None:
    rows = [row(3, 1 + number % 17) for number in range(96)]
    plan = plan_batches(rows, 8, 24, seed=1)
    assert sorted(sum(plan[:12], [])) == sorted(sum(plan[12:], [])) == list(range(96))
    assert plan_batches(rows, 8, 7, seed=1) == plan[:7]
    assert plan_batches(rows, 8, 7, seed=2) != plan[:7]
    spread = [max(len(rows[i].response) for i in b) - min(len(rows[i].response) for i in b) for b in plan]
    assert sum(spread) / len(spread) < 5  # 16 at random
