# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows: finding images, copying, digests."""

import os
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cvreg_trainer.data.rows import copy_row, find_images, replace_images, row_digest


RED, BLUE = Image.new("RGB", (4, 3), "red"), Image.new("RGB", (4, 3), "blue")
Pair = namedtuple("Pair", "image caption")


def image_turn(*images, text="what is this ?"):
    entries = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*entries, {"type": "text", "text": text}]}


ROWS = {
    "image": ({"image": RED, "text": "a"}, [RED]),
    "images": ({"images": [RED, BLUE], "prompt": "a", "completion": "b"}, [RED, BLUE]),
    "messages": (
        {"messages": [image_turn(RED), {"role": "assistant", "content": "x"}, image_turn(BLUE)]},
        [RED, BLUE],
    ),
    "tuple": ((BLUE, "caption"), [BLUE]),
    "named tuple": (Pair(RED, "caption"), [RED]),
    "twice": ({"images": [RED, RED], "a": {"b": (RED,)}}, [RED]),
    "bare": (RED, [RED]),
    "none": ({"image": None, "images": [], "text": "a", "n": 1}, []),
}


@pytest.mark.parametrize("name", ROWS)
def test_images_are_found_anywhere(name):
    row, expected = ROWS[name]
    found = find_images(row)
    assert len(found) == len(expected) and all(one is other for one, other in zip(found, expected, strict=True))


def test_order_of_images_does_not_depend_on_the_order_of_keys():
    assert find_images({"b": RED, "a": BLUE}) == find_images({"a": BLUE, "b": RED}) == [BLUE, RED]


def test_arrays_count_as_images_only_by_name_and_form():
    pixels = np.zeros((5, 6, 3), dtype=np.uint8)
    assert find_images({"image": pixels})[0] is pixels
    assert len(find_images({"images": [pixels, pixels[..., 0]]})) == 2
    assert len(find_images({"image": pixels.transpose(2, 0, 1).copy(), "images": [pixels.astype(float)]})) == 2
    assert len(find_images({"image": torch.zeros(3, 5, 6), "images": [torch.zeros(5, 6, dtype=torch.uint8)]})) == 2
    assert find_images({"image": torch.zeros(5, 6), "images": [pixels > 0, np.zeros((0, 6, 3))]}) == []
    assert find_images({"mask": pixels}) == []


@pytest.mark.parametrize("name", ROWS)
def test_replacing_keeps_the_structure_and_the_original(name):
    row, images = ROWS[name]
    before = row_digest(row)
    calls = []

    def negative(image):
        calls.append(image)
        return Image.new("RGB", image.size, "white")

    result = replace_images(row, negative)
    assert len(calls) == len(images) == len(find_images(result)) and type(result) is type(row)
    assert all(image.getpixel((0, 0)) == (255, 255, 255) for image in find_images(result))
    assert row_digest(row) == before and find_images(row) == images
    # Everything but the images is as before.
    assert repr(replace_images(result, lambda _: 0)) == repr(replace_images(row, lambda _: 0)) or len(images) > 1


def test_a_collator_may_do_anything_to_a_copy():
    row = OrderedDict(
        image=RED,
        messages=[image_turn(BLUE), {"role": "assistant", "content": [{"type": "text", "text": "x"}]}],
        pixels=np.zeros(3),
        ids=torch.zeros(3),
        pair=(["a"], {"b": 1}),
    )
    digest = row_digest(row)
    duplicate = copy_row(row)
    assert isinstance(duplicate, OrderedDict) and row_digest(duplicate) == digest
    duplicate["images"] = [duplicate.pop("image")]
    duplicate["messages"][0]["content"].pop(0)
    duplicate["messages"][1]["content"][0]["text"] = "y"
    duplicate["messages"].append("z")
    duplicate["pixels"][0] = 1
    duplicate["ids"].add_(1)
    duplicate["pair"][0].append("c")
    duplicate["pair"][1]["b"] = 2
    assert row_digest(row) == digest and list(row) == ["image", "messages", "pixels", "ids", "pair"]


DIFFERENT = [
    {},
    {"a": "b"},
    {"ab": ""},
    {"a": b"b"},
    {"a": ["b"]},
    {"a": {"b": "c"}},
    {"a": "1"},
    {"a": 1},
    {"a": 1.0},
    {"a": True},
    {"a": [1, 2]},
    {"a": [12]},
    {"a": [[1], 2]},
    {"a": [1, [2]]},
    {"a": ["x", "yz"]},
    {"a": ["xy", "z"]},
    {"a": np.array([1, 2])},
    {"a": np.array([1, 2], dtype=np.int32)},
    {"a": np.array([[1], [2]])},
    {"a": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)},
    {"a": torch.tensor([1.0, 3.0], dtype=torch.bfloat16)},
    {"a": torch.tensor([1.0, 2.0], dtype=torch.float16)},
    {"a": RED},
    {"a": BLUE},
    {"a": RED.resize((3, 4))},
    {"a": RED.convert("RGBA")},
    {"a": RED.quantize(2)},
    {"a": BLUE.quantize(2)},
    {"b": RED},
    {"a": object()},
]


def test_digests_of_different_rows_differ():
    assert len({row_digest(row) for row in DIFFERENT}) == len(DIFFERENT)


def test_digest_ignores_what_is_no_content():
    row = {"b": [1, "x", {"d": 1, "c": (1, 2)}], "a": RED}
    assert row_digest(row) == row_digest({"a": RED.copy(), "b": [1, "x", {"c": (1, 2), "d": 1}]})
    assert row_digest(row) == row_digest({**row, "filled": None, "b": (1, "x", {"c": [1, 2], "d": 1})})
    assert row_digest({"x": np.int64(3), "p": Path("a")}) == row_digest({"x": 3, "p": "a"})
    strided = torch.arange(12).reshape(3, 4)[:, ::2]
    assert row_digest([strided]) == row_digest([strided.contiguous()])
    assert row_digest([object()]) == row_digest([object()])


def test_digest_is_the_same_in_another_process_with_another_hash_seed():
    code = (
        "from PIL import Image; from cvreg_trainer.data.rows import row_digest;"
        "print(row_digest({'z': 1.5, 'messages': [{'role': 'user', 'content': 'hé'}], 'image':"
        " Image.new('RGB', (4, 3), 'red')}).hex())"
    )
    row = {"image": RED, "messages": [{"content": "hé", "role": "user"}], "z": 1.5}
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == row_digest(row).hex()
