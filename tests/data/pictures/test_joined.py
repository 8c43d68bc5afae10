# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""One set of all sources: nothing twice, nothing broken, and what shows the same on one side of a split."""

import shutil
from pathlib import Path

import pytest
from picture_packages import make_packages
from PIL import Image

from cvreg_trainer.data.pictures import PICTURE_SOURCES, SPLITS, Picture, joined, load_pictures, split_pictures


@pytest.fixture(autouse=True)
def no_system_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cvreg_trainer.data.pictures.packages.SYSTEM", tmp_path / "nowhere")


def named(caption: str, family: str = "", source: str = "tux_paint", key: str = "") -> Picture:
    return Picture(source, key or f"{caption} {family}", b"", caption, family=family)


def test_all_sources_are_read_in_their_order(tmp_path: Path) -> None:
    pictures = load_pictures(make_packages(tmp_path))
    sources = [picture.source for picture in pictures]
    assert list(dict.fromkeys(sources)) == list(PICTURE_SOURCES)
    assert {name: sources.count(name) for name in PICTURE_SOURCES} == {
        "tux_paint": 2, "food": 2, "open_clipart": 2, "google_emoji": 2, "twitter_emoji": 2, "fashion_mnist": 3,
    }  # fmt: skip


def test_equal_files_are_taken_once(tmp_path: Path) -> None:
    make_packages(tmp_path)
    stamps = tmp_path / "usr/share/tuxpaint/stamps"
    shutil.copy(stamps / "food/apple.png", stamps / "animals/dogs/brown_dog.png")
    assert [picture.key for picture in load_pictures(tmp_path, ["tux_paint"])] == ["animals/dogs/brown_dog"]


def test_broken_and_huge_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_packages(tmp_path)
    stamps = tmp_path / "usr/share/tuxpaint/stamps"
    (stamps / "food/apple.png").write_bytes(b"no picture")
    Image.new("RGB", (60, 60)).save(stamps / "animals/dogs/brown_dog.png")
    assert len(load_pictures(tmp_path, ["tux_paint"])) == 1
    monkeypatch.setattr(joined, "MAX_PIXELS", 1000)
    assert load_pictures(tmp_path, ["tux_paint"]) == []


def test_an_unknown_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of tux_paint, .*, but is 'coco'"):
        load_pictures(tmp_path, ["coco"])


def test_groups_join_families_and_captions_over_any_number_of_steps() -> None:
    pictures = [
        named("A dog.", "one"),
        named("the DOG", "two"),
        named("puppy", "two"),
        named("Chien", "three"),
        named("a dog", "one", source="food"),
    ]
    groups = joined.group_pictures(pictures)
    assert groups[0] == groups[1] == groups[2] == groups[4] != groups[3]
    assert joined.group_pictures(pictures[::-1]) == groups[::-1]


def test_labels_shared_by_design_link_nothing() -> None:
    pictures = [named("a bag", str(number), source="fashion_mnist") for number in range(3)]
    assert len(set(joined.group_pictures(pictures))) == 3


def test_vendors_of_an_emoji_are_never_separated(tmp_path: Path) -> None:
    splits = split_pictures(load_pictures(make_packages(tmp_path), ["google_emoji", "twitter_emoji"]))
    for pictures in splits.values():
        assert sorted(p.key for p in pictures if p.source == "google_emoji") == sorted(
            p.key for p in pictures if p.source == "twitter_emoji"
        )


def test_splits_hold_their_shares_and_do_not_depend_on_other_pictures() -> None:
    pictures = [named(f"thing {chr(97 + n // 676)}{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}") for n in range(3000)]
    splits = split_pictures(pictures)
    assert sum(map(len, splits.values())) == 3000
    for name, share in SPLITS.items():
        assert len(splits[name]) / 30 == pytest.approx(share, abs=3)
    few = split_pictures(pictures[::7])
    assert all(set(map(id, few[name])) <= set(map(id, splits[name])) for name in SPLITS)
