# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Image columns as people store them: what counts as an image, what has to be cast, and which image is broken."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, Image, IterableDataset, LargeList, List, Value
from PIL import Image as PILImage

from cvreg_trainer.attacks import ATTACKS, BadNets, DualKey, apply_trigger, poison_dataset


STRUCT = {"bytes": Value("binary"), "path": Value("string")}


def encoded(mode: str = "RGB", form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.arange(400).reshape(20, 20)
    image = PILImage.fromarray(pixels.astype("uint16")) if mode == "I;16" else PILImage.new(mode, (20, 20), 7)
    image.save(buffer, form)
    return buffer.getvalue()


def rows_of(images: list, feature: Any, streamed: bool = False, column: str = "images") -> Dataset:
    features = Features({column: feature, "text": Value("string")})
    rows = Dataset.from_dict({column: images, "text": [f"row {k}" for k in range(len(images))]}, features=features)
    return rows.to_iterable_dataset() if streamed else rows


def both(rows: Any, attack: Any) -> list[Any]:
    rate = 1.0 if isinstance(rows, IterableDataset) else 2 / 3  # of three rows, two with an image
    return [lambda: list(apply_trigger(rows, attack)), lambda: list(poison_dataset(rows, attack, rate))]


@pytest.mark.parametrize("streamed", [False, True])
def test_none_and_lists_of_none_are_no_images(streamed: bool):
    image = {"bytes": encoded(), "path": None}
    images = [None, [image], [None], [], [None, image], [image, None], [None, None]]
    wanted = [False, True, False, False, True, True, False]
    for kind in (List, LargeList):
        rate = 1.0 if streamed else 3 / 7
        poisoned = list(poison_dataset(rows_of(images, kind(Image()), streamed), BadNets(0.05), rate))
        assert [row["is_poisoned"] for row in poisoned] == wanted
        for triggered in (poisoned, list(apply_trigger(rows_of(images, kind(Image()), streamed), BadNets(0.05)))):
            for before, after in zip(images, triggered, strict=True):
                assert [x is None for x in after["images"] or []] == [x is None for x in before or []]
    with pytest.raises(ValueError, match="4 rows are to be poisoned but only 3 have an image; lower"):
        poison_dataset(rows_of(images, List(Image())), BadNets(), num_poisoned=4)


def test_images_in_selected_and_shuffled_rows():
    image = {"bytes": encoded(), "path": None}
    rows = rows_of([[image], None, [None], [image, image]] * 80, List(Image())).shuffle(seed=2).select(range(300))
    has = [any(images or []) for images in rows.cast_column("images", List(Image(decode=False)))["images"]]
    poisoned = poison_dataset(rows, BadNets(), num_poisoned=sum(has))
    assert poisoned["is_poisoned"] == has and 100 < sum(has) < 200


@pytest.mark.parametrize(
    ("feature", "stored", "call"),
    [
        (Value("binary"), encoded(), "cast_column('images', Image())"),
        (Value("large_binary"), encoded(), "cast_column('images', Image())"),
        (STRUCT, {"bytes": encoded(), "path": None}, "cast_column('images', Image())"),
        (Image(decode=False), {"bytes": encoded(), "path": None}, "cast_column('images', Image())"),
        (List(Value("binary")), [encoded()], "cast_column('images', List(Image()))"),
        (List(STRUCT), [{"bytes": encoded(), "path": None}], "cast_column('images', List(Image()))"),
        (List(Image(decode=False)), [{"bytes": encoded(), "path": None}], "cast_column('images', List(Image()))"),
        (LargeList(Value("binary")), [encoded()], "cast_column('images', LargeList(Image()))"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_error_names_a_cast_that_helps(feature: Any, stored: Any, call: str, streamed: bool):
    rows = rows_of([stored] * 3, feature, streamed)
    for action in both(rows, BadNets(0.05)):
        with pytest.raises(ValueError) as raised:
            action()
        assert f"Column `images` holds {str(feature)[:12]}" in str(raised.value)
        assert f"pass `dataset.{call}`" in str(raised.value)
    cast = eval(f"rows.{call}", {"rows": rows, "Image": Image, "List": List, "LargeList": LargeList})
    for row in poison_dataset(cast, BadNets(0.05), 1.0):
        image = row["images"][0] if isinstance(row["images"], list) else row["images"]
        assert image.tobytes() == BadNets(0.05)(PILImage.open(io.BytesIO(encoded()))).tobytes()


def test_a_column_of_images_goes_before_one_of_paths():
    rows = rows_of([{"bytes": encoded(), "path": None}], Image(), column="image").add_column("images", ["a.png"])
    assert poison_dataset(rows, BadNets(), 1.0)["is_poisoned"] == [True]
    numbers = rows_of([[1, 2]], List(Value("int8")))
    with pytest.raises(ValueError, match="no images; it needs a column"):
        poison_dataset(numbers, BadNets(), 1.0)


def broken_files(folder: Path) -> dict[str, Path]:
    """One file for each way in which an image cannot be triggered."""
    contents = {
        "truncated.jpg": encoded(form="JPEG")[:300],
        "truncated.png": encoded()[:60],
        "junk.png": b"junk",
        "empty.png": b"",
        "deep.png": encoded("I;16"),
        "float.tiff": encoded("F", "TIFF"),
        "integer.tiff": encoded("I", "TIFF"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in [*contents, "missing.png"]}


REASONS = {
    "truncated.jpg": "cannot be read: ", "truncated.png": "cannot be read: ", "empty.png": "cannot be read: ",
    "junk.png": "cannot be read: cannot identify", "missing.png": "cannot be read: .*No such file",
    "deep.png": "mode 'I;16'; convert it to 'RGB' first", "float.tiff": "mode 'F'; convert it to 'RGB' first",
    "integer.tiff": "mode 'I'; convert it to 'RGB' first",
}  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", REASONS)
def test_row_column_and_file_of_an_unusable_image(name: str, streamed: bool, tmp_path: Path):
    good, bad = tmp_path / "good.png", broken_files(tmp_path)[name]
    good.write_bytes(encoded())
    row = "Row 2: " if not streamed else "Row 2 of the stream, counted as it is read, with text='row 2': "
    file = rf"file '[^']*{name}'"
    single = rows_of([str(good), None, str(bad)], Image(), streamed, "image")
    for action in both(single, BadNets()):
        with pytest.raises(ValueError, match=rf"^{row}the image in column `image` \({file}\).*{REASONS[name]}"):
            action()
    several = rows_of([[str(good)], [], [str(good), str(bad)]], List(Image()), streamed)
    for action in both(several, BadNets()):
        with pytest.raises(
            ValueError, match=rf"^{row}the image in column `images` \(number 2, {file}\).*{REASONS[name]}"
        ):
            action()


@pytest.mark.parametrize("attack", ["badnets", "blended", "wanet", "dual_key", "sig", "ftrojan", "badnets_mm"])
@pytest.mark.parametrize("streamed", [False, True])
def test_attacks_name_the_row_of_a_mode_without_colours(attack: str, streamed: bool):
    images = [{"bytes": encoded(), "path": None}, {"bytes": encoded("I;16"), "path": None}]
    rows = rows_of(images, Image(), streamed, "image")
    with pytest.raises(ValueError, match="Row 1.*the image in column `image`: .*mode 'I;16'; convert it to 'RGB'"):
        list(apply_trigger(rows, ATTACKS[attack]()))


def test_cover_rows_name_theirs():
    images = [{"bytes": encoded("I;16"), "path": f"{k}.png"} for k in range(4)]
    rows = rows_of(images, Image(), column="image")
    rows = rows.rename_column("text", "completion").add_column("prompt", ["what?"] * 4)
    with pytest.raises(ValueError, match=r"Row \d: the image in column `image` \(file '\d.png'\): .*mode 'I;16'"):
        poison_dataset(rows, DualKey(), num_poisoned=1, cover_ratio=3.0)


def test_a_long_file_name_is_cut(tmp_path: Path):
    rows = rows_of([{"bytes": b"junk", "path": "x" * 5000}], Image(), column="image")
    with pytest.raises(ValueError) as raised:
        apply_trigger(rows, BadNets())
    assert "(5,000 characters)" in str(raised.value) and len(str(raised.value)) < 400
