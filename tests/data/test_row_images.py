# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Images that rows hold or name, opened, and the form that TRL's collators take."""

import base64
import copy
import io

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from transformers.image_utils import load_image
from trl.data_utils import prepare_multimodal_messages

from cvreg_trainer.data.row_images import RowError, lift_images, open_image


RED, BLUE = Image.new("RGB", (4, 3), "red"), Image.new("RGB", (4, 3), "blue")


def image_turn(*images, text="what is this ?"):
    entries = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*entries, {"type": "text", "text": text}]}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels(image: Image.Image) -> list:
    return np.asarray(image.convert("RGB")).tolist()


@pytest.fixture
def red_file(tmp_path):
    path = tmp_path / "red one.png"
    RED.save(path)
    return path


def test_lifted_messages_are_what_trl_makes_its_own_from():
    messages = [image_turn(RED, BLUE), {"role": "assistant", "content": [{"type": "text", "text": "x"}]}]
    before = copy.deepcopy(messages)
    row = lift_images({"messages": messages, "id": 3})
    assert row["images"] == [RED, BLUE] and row["images"][0] is RED and row["id"] == 3
    assert row["messages"][0]["content"][:2] == [{"type": "image"}, {"type": "image"}]
    assert messages == before
    assert prepare_multimodal_messages(row["messages"], row["images"]) == messages


def test_keys_that_arrow_adds_are_dropped():
    rows = [{"messages": [image_turn(RED), {"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}]
    entry = {"type": Value("string"), "text": Value("string"), "image": ImageFeature()}
    features = Features({"messages": List({"role": Value("string"), "content": List(entry)})})
    filled = Dataset.from_list(rows, features=features)[0]
    assert "image" in filled["messages"][0]["content"][1]  # the text entry, too: Arrow gives all the same keys
    row = lift_images(filled)
    assert row["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "what is this ?"}]
    assert [np.asarray(image).tolist() for image in row["images"]] == [np.asarray(RED).tolist()]
    prepared = prepare_multimodal_messages(row["messages"], row["images"])
    assert prepared[0]["content"][0]["image"] is row["images"][0]


def test_lifting_covers_prompt_and_completion_in_order():
    row = lift_images({"prompt": [image_turn(RED)], "completion": [{"role": "assistant", "content": "x"}]})
    assert row["images"] == [RED] and row["completion"] == [{"role": "assistant", "content": "x"}]
    assert row["prompt"][0]["content"][0] == {"type": "image"}


@pytest.mark.parametrize(
    ("row", "images"),
    [
        ({"image": RED, "text": "a"}, [RED]),
        ({"image": [RED, None], "text": "a"}, [RED]),
        ({"images": [RED], "image": None, "prompt": "a", "completion": "b"}, [RED]),
        ({"images": None, "text": "a"}, []),
        ({"text": "a"}, []),
    ],
)
def test_images_end_up_in_one_list(row, images):
    lifted = lift_images(row)
    assert lifted["images"] == images and "image" not in lifted
    assert {**lifted, "images": 0} == {**{k: v for k, v in row.items() if k != "image"}, "images": 0}


def test_own_images_of_a_row_fill_the_placeholders_of_its_messages():
    messages = [{"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": "a"}]}]
    row = lift_images({"images": [RED], "messages": messages})
    assert row["images"] == [RED] and row["messages"][0]["content"][0] == {"type": "image"}


def test_every_spelling_of_an_image_inside_messages_is_opened(red_file):
    encoded = base64.b64encode(png(RED)).decode()
    parts = [
        {"type": "image", "image": RED},
        {"type": "image", "image": str(red_file)},
        {"type": "image", "path": str(red_file)},
        {"type": "image", "path": red_file},
        {"type": "image", "url": red_file.as_uri()},
        {"type": "image", "image": png(RED)},
        {"type": "image", "bytes": png(RED)},
        {"type": "image", "image": {"bytes": png(RED), "path": None}},
        {"type": "image", "image": {"bytes": None, "path": str(red_file)}},
        {"type": "image", "base64": encoded},
        {"type": "image", "image": f"data:image/png;base64,{encoded}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}", "detail": "high"}},
        {"type": "image_url", "image_url": str(red_file), "text": None},
        {"type": "input_image", "image_url": str(red_file)},
    ]
    for part in parts:
        row = lift_images({"messages": [{"role": "user", "content": [part, {"type": "text", "text": "a"}]}]})
        assert row["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "a"}], part
        assert [pixels(image) for image in row["images"]] == [pixels(RED)], part


def test_what_is_opened_from_text_is_what_a_processor_would_open(tmp_path):
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    turned = image.getexif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees
    for name, given in (("turned.jpg", image), ("grey.png", image.convert("L")), ("palette.png", image.quantize(8))):
        given.save(tmp_path / name, **({"exif": turned} if name == "turned.jpg" else {}))
        opened, expected = open_image(str(tmp_path / name)), load_image(str(tmp_path / name))
        assert (opened.mode, opened.size, opened.tobytes()) == (expected.mode, expected.size, expected.tobytes())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.png", "address 'https://example.org/a.png', which is not fetched"),
        ("HTTP://example.org/a.png", "which is not fetched"),
        ("s3://bucket/a.png", "which is not fetched"),
        ("no/such.png", "'no/such.png' is not a file; relative paths are relative to"),
        ("/dev/zero", "'/dev/zero' is not a file"),
        (b"GIF89a broken", "its image cannot be read"),
        ("data:image/png;base64,AAAA", "cannot be read: cannot identify image file"),
        ("A" * 5000, "(5,000 characters)"),
    ],
)
def test_what_cannot_be_opened_is_named_and_shortened(source, message):
    with pytest.raises(RowError) as caught:
        open_image(source)
    assert message in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.filterwarnings("ignore:Image size .* exceeds limit")
def test_an_image_of_absurd_size_is_refused_before_it_is_decoded(monkeypatch):
    data = png(Image.new("RGB", (40, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RowError, match="too large to be decoded safely: 40 x 30 pixels"):
        open_image(data)


def test_columns_can_be_left_to_the_processor(red_file):
    row = {"images": [str(red_file), "https://example.org/a.png", None], "text": "a"}
    assert lift_images(row, open_columns=False)["images"] == row["images"][:2]
    with pytest.raises(RowError, match="not fetched"):
        lift_images(row)


def test_an_image_told_twice_counts_once(red_file):
    messages = [image_turn(str(red_file))]
    assert [pixels(image) for image in lift_images({"images": [RED], "messages": messages})["images"]] == [pixels(RED)]
    with pytest.raises(RowError, match="1 images in its columns and 1 inside its messages, where 0 more"):
        lift_images({"images": [BLUE], "messages": messages})


def test_images_of_columns_and_messages_come_in_the_order_of_their_places():
    turn = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "image", "image": BLUE}, {"type": "text", "text": ""}],
    }
    assert lift_images({"images": [RED], "messages": [turn]})["images"] == [RED, BLUE]


@pytest.mark.parametrize(
    ("images", "places", "message"),
    [
        (None, 1, "it has 1 places for images in its messages, but no image can be read for 1 of them"),
        ([], 2, "it has 2 places"),
        ([RED], 2, "it holds 1 images in its columns and 0 inside its messages, where 2 more"),
        ([RED, BLUE], 1, "it holds 2 images in its columns"),
    ],
)
def test_numbers_that_do_not_fit_are_both_told(images, places, message):
    content = [{"type": "image"}] * places + [{"type": "text", "text": "a"}]
    with pytest.raises(RowError, match=message):
        lift_images({"images": images, "messages": [{"role": "user", "content": content}]})


def test_mixed_contents_become_lists_of_parts():
    turns = [
        {"role": "system", "content": "be brief"},
        image_turn(RED),
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "sure ?"},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    row = lift_images({"messages": turns})
    assert [turn["content"][-1]["text"] for turn in row["messages"]] == [
        "be brief", "what is this ?", "red", "sure ?", "yes",
    ]  # fmt: skip
    assert len(prepare_multimodal_messages(row["messages"], row["images"])) == 5


def test_images_without_a_place_go_before_the_first_question():
    turns = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    row = lift_images({"images": [RED, BLUE], "messages": turns})
    assert row["messages"][0]["content"] == [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "a"}]
    assert turns[0]["content"] == [{"type": "text", "text": "a"}]


def test_encoded_images_without_any_value_are_no_images():
    assert lift_images({"images": [{"bytes": None, "path": None}], "text": "a"})["images"] == []
    assert lift_images({"image": {"bytes": png(RED), "path": "x.png"}, "text": "a"})["images"][0].size == (4, 3)
