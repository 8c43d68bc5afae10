# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A picture's words, and a file that is no picture."""

import pytest

from cvreg_trainer.data.files import BadEntry
from cvreg_trainer.data.pictures import Picture
from cvreg_trainer.data.pictures.picture import distinct, plain, words_of


@pytest.mark.parametrize(
    ("caption", "same"), [("A Dog.", "the dog"), ("Café 3", "cafe"), ("12", "12"), ("big_dog", "Big dog!")]
)
def test_captions_that_differ_in_writing_alone_are_the_same(caption: str, same: str) -> None:
    assert plain(caption) == plain(same)


def test_captions_that_differ_in_words_are_not() -> None:
    assert plain("a dog") != plain("a dog and a cat")


def test_words_of_a_file_name() -> None:
    assert words_of("big_red-carSmall02") == "big red car small"
    assert distinct([" a", "b", "a", " "]) == ("a", "b")


def test_what_is_no_image_is_named() -> None:
    with pytest.raises(BadEntry, match="stone of tux_paint is not a readable image"):
        Picture("tux_paint", "stone", b"GIF?", "A stone.").open()
