# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows that are made of captioned pictures."""

import io

import pytest
from PIL import Image

from cvreg_trainer.data.pictures import ROW_KINDS, Picture, make_rows, to_dataset


def picture(caption: str, category: str, *names: str, cryptic: bool = False, **translations: str) -> Picture:
    file = io.BytesIO()
    Image.new("RGBA", (300, 150), (255, 0, 0, 0)).save(file, "PNG")
    return Picture(
        "tux_paint", caption, file.getvalue(), caption, names, category, cryptic=cryptic, translations=translations
    )


PICTURES = [
    picture("A red car.", "vehicles", "car", "automobile", de="Ein rotes Auto."),
    picture("A dog", "animals", "dog", "pet"),
    picture("A black and white cat", "animals", "cat"),
    picture("kr_terminal", "unsorted", "computer", cryptic=True),
]


def turns(kind: str) -> list[tuple[str, ...]]:
    return [row.turns for row in make_rows(PICTURES, [kind])]


def test_every_picture_has_a_caption_as_it_is() -> None:
    assert [answer for _, answer in turns("caption")] == [picture.caption for picture in PICTURES]


def test_short_answers_say_what_the_source_says() -> None:
    assert [answer for _, answer in turns("name")] == ["a red car", "a dog", "a black and white cat"]
    assert [answer for _, answer in turns("kind")] == ["vehicles", "animals", "animals"]
    assert [answer for _, answer in turns("colour")] == ["red"]
    assert turns("turns")[1] == (
        "What is it?", "a dog", "What kind of thing is it? Answer with a single word or phrase.", "animals",
    )  # fmt: skip


def test_presence_is_true_of_own_words_and_false_of_those_of_another_kind() -> None:
    seen = set()
    for seed in range(30):
        for row in make_rows(PICTURES, ["presence"], seed=seed):
            asked = row.turns[0].split("“")[1].split("”")[0]
            assert row.turns[1] == ("Yes" if asked in row.pictures[0].names else "No")
            seen.add(row.turns[1])
    assert seen == {"Yes", "No"}


def test_rows_of_no_two_and_other_languages() -> None:
    rows = make_rows(PICTURES, ["text", "two", "language"])
    assert {row.kind: len(row.pictures) for row in rows} == {"text": 0, "two": 2, "language": 1}
    assert [row.turns[1] for row in rows if row.kind == "language"] == ["Ein rotes Auto."]
    assert all(len(row.turns[1].split("; ")) == 2 for row in rows if row.kind == "two")


def test_the_seed_decides() -> None:
    assert make_rows(PICTURES, ROW_KINDS, seed=3) == make_rows(PICTURES, ROW_KINDS, seed=3)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"one of caption, .*, but is 'poem'"):
        make_rows(PICTURES, ["poem"])


def test_the_data_set_is_conversational_with_small_pictures_on_white() -> None:
    dataset = to_dataset(make_rows(PICTURES, ["caption", "turns", "text", "two"]), side=64)
    kinds = {row["kind"]: row for row in dataset}
    assert {kind: len(row["images"]) for kind, row in kinds.items()} == {"caption": 1, "turns": 1, "text": 0, "two": 2}
    assert [message["role"] for message in kinds["turns"]["prompt"]] == ["user", "assistant", "user"]
    assert kinds["turns"]["completion"] == [{"role": "assistant", "content": "animals"}]
    image = kinds["caption"]["images"][0]
    assert image.size == (64, 32) and image.getpixel((5, 5)) == (255, 255, 255)
    assert [row["cryptic"] for row in dataset if row["kind"] == "caption"] == [False, False, False, True]
