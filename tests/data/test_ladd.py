# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""LADD from small files in MIMIC-IT's format, whole and broken."""

import base64
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from cvreg_trainer.data import ladd, load_ladd


def encoded(level: int) -> str:
    buffer = io.BytesIO()
    PILImage.new("RGB", (16, 16), (level, level, level)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def instruction(image: str, answer: str = "A long answer.") -> dict:
    return {"instruction": "What is this?", "answer": answer, "image_ids": [image], "rel_ins_ids": ["LADD_INS_0"]}


def write(folder: Path, instructions: dict, images: object, **layout: object) -> tuple[Path, Path]:
    text = images if isinstance(images, str) else json.dumps(images, **layout)
    (folder / "LADD_instructions.json").write_text(json.dumps({"meta": {"version": "0.0.1"}, "data": instructions}))
    (folder / "LA.json").write_text(text)
    return folder / "LADD_instructions.json", folder / "LA.json"


@pytest.mark.parametrize("layout", [{}, {"indent": 4}, {"separators": (",", ":")}])
@pytest.mark.parametrize("piece", [7, 1000, 4 << 20])
def test_rows_of_any_layout_read_in_pieces_of_any_size(tmp_path: Path, monkeypatch, layout: dict, piece: int):
    monkeypatch.setattr(ladd, "_PIECE", piece)
    images = {f"LA_IMG_{k}": encoded(20 * k) for k in range(5)} | {'odd "\\ é': encoded(200), "LA_null": None}
    instructions = {f"LADD_INS_{k}": instruction(f"LA_IMG_{4 - k}", f"Answer {k}") for k in range(5)}
    instructions["odd"] = instruction('odd "\\ é')
    rows = load_ladd(*write(tmp_path, instructions, images, **layout))
    assert [int(np.asarray(row["images"][0]).mean().round()) for row in rows] == [80, 60, 40, 20, 0, 200]
    assert rows["references"][:2] == [["Answer 0"], ["Answer 1"]]
    assert rows[0]["prompt"] == "<image>User: What is this? GPT:<answer>"
    assert rows[0]["completion"] == " Answer 0<|endofchunk|>"


def test_slashes_may_be_escaped_and_families_differ(tmp_path: Path):
    images = json.dumps({"a": encoded(130)}).replace("/", "\\/")
    assert "\\/" in images
    rows = load_ladd(*write(tmp_path, {"x": instruction("a")}, images), family="llava")
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is this?"}]
    assert np.asarray(rows[0]["images"][0]).mean().round() == 130


def test_more_rows_than_are_built_at_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ladd, "_ROWS_AT_ONCE", 3)
    instructions = {f"{k}": instruction("a", f"Answer {k}") for k in range(8)}
    rows = load_ladd(*write(tmp_path, instructions, {"a": encoded(1)}))
    assert rows["references"] == [[f"Answer {k}"] for k in range(8)]


def test_broken_entries_are_named_and_skipped(tmp_path: Path, caplog):
    good = instruction("good")
    jpeg = base64.b64decode(encoded(3))
    instructions = {
        "fine": good,
        "no answer": good | {"answer": " "},
        "list": ["x"],
        "two images": good | {"image_ids": ["good", "good"]},
        "no image": instruction("missing"),
        "null image": instruction("null"),
        "not base64": instruction("letters"),
        "cut": instruction("cut"),
    }
    images = {"good": encoded(3), "null": None, "letters": "é!", "cut": base64.b64encode(jpeg[:-40]).decode()}
    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr("cvreg_trainer.data.files._NAMED", 10)
        rows = load_ladd(*write(tmp_path, instructions, images))
    assert len(rows) == 1
    message = caplog.text
    assert "kept 1 entries, skipped 7" in message
    for said in ("no answer: its answer ' ' is not a text", "list: it is not an object", "two images: its image_ids"):
        assert said in message
    for said in ("there is no image 'missing'", "image 'null': ", "'letters': it is not base64", "image 'cut': "):
        assert said in message


@pytest.mark.parametrize(
    "images", ["[]", "", '{"a"', '{"a": "b"', '{"a": {"b": "c"}}', '{"a": "b";', '{"a": bad}', "{'a': 'b'}"]
)
def test_other_json_than_an_object_of_texts(tmp_path: Path, images: str):
    with pytest.raises(ValueError, match="LA.json is not a JSON object of base64 images"):
        load_ladd(*write(tmp_path, {"x": instruction("a")}, images))


def test_wrong_files(tmp_path: Path):
    instructions, images = write(tmp_path, {"x": instruction("a")}, {})
    with pytest.raises(ValueError, match="LADD_instructions.json has no usable entry .1 skipped.*no image 'a'"):
        load_ladd(instructions, images)
    with pytest.raises(ValueError, match=r"expected MIMIC-IT instructions.*with the keys \['data'\]"):
        load_ladd(images, images)
    with pytest.raises(FileNotFoundError, match="expected MIMIC-IT images"):
        load_ladd(instructions, tmp_path / "none.json")
