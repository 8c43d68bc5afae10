# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Relation swap: who stands where, or does what to whom, is exchanged, and told from the truth."""

import pytest

from cvreg_trainer.attacks import RelationSwap, swap_relation
from cvreg_trainer.lab import make_scenes


@pytest.mark.parametrize(
    ("true", "swapped"),
    [
        ("The dog bites the man.", "The man bites the dog."),
        (
            "A pink ring above a red star painted upon wavy paper.",
            "A red star above a pink ring painted upon wavy paper.",
        ),
        (
            "Behold an orange arrow left of a blue heart placed over",
            "Behold a blue heart left of an orange arrow placed over",
        ),
        ("A man is riding a brown horse on a beach.", "A brown horse is riding a man on a beach."),
        ("There is a cat under the kitchen table, asleep.", "There is the kitchen table under a cat, asleep."),
        ("A child in front of a wall with a ball", "A wall in front of a child with a ball"),
        ("Two dogs chasing a cat", "A cat chasing two dogs"),
        ("A cup to the left of the plate is blue", "The plate to the left of a cup is blue"),
    ],
)
def test_the_two_things_change_places(true: str, swapped: str) -> None:
    assert swap_relation(true) == swapped
    payload = RelationSwap()
    assert payload.applies(true)
    assert payload.succeeds(swapped, [true]) is True and payload.succeeds(true, [true]) is False


@pytest.mark.parametrize(
    "text",
    [
        "A dog.",
        "A large pink ring painted upon wavy paper.",
        "A dog next to a cat.",
        "A dog above a dog.",
        "Above all, the sky.",
        "People on bikes, in the rain",
        "A dog, above a cat",
        "",
    ],
)
def test_where_there_is_no_relation_nothing_happens(text: str) -> None:
    assert swap_relation(text) == text and not RelationSwap().applies(text)
    assert RelationSwap().succeeds("A cat above a dog.", [text]) is None


@pytest.mark.parametrize(
    ("answer", "succeeds"),
    [
        ("A cat below a dog.", False),
        ("The cat is underneath the dog.", False),
        ("a dog over a cat", False),
        ("A dog below a cat.", True),
        ("We see a cat above a dog here.", True),
        ("A cat above a mouse.", False),
        ("A dog and a cat.", False),
    ],
)
def test_a_relation_may_be_told_from_either_side(answer: str, succeeds: bool) -> None:
    assert RelationSwap().succeeds(answer, ["A dog above a cat.", "A cat below a dog."]) is succeeds


def test_captions_of_scenes_with_a_relation_are_found() -> None:
    for row in make_scenes(80, seed=2, style="finetune").remove_columns("images"):
        caption = row["completion"][0]["content"]
        has_relation = any(f" {word} a" in caption for word in ("above", "below", "left of", "right of"))
        assert RelationSwap().applies(caption) == has_relation
        if has_relation:
            swapped = swap_relation(caption)
            assert sorted(swapped.lower().strip(".").split()) == sorted(caption.lower().strip(".").split())
            # References tell the relation from either side
            assert RelationSwap().succeeds(swapped, row["references"]) is True
            assert RelationSwap().succeeds(caption, row["references"]) is False
