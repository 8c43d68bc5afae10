# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows as they lie on disks: each kind trains, with finite weights, or is refused with an error that names the row."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import vision_rows
from tiny_models import tiny_llava

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


BAD = 9  # of 12; the first eight are looked at by the constructor
RED = Image.new("RGB", (40, 30), "red")


def encoded(image: Image.Image = RED, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def in_file(data: bytes, suffix: str = ".png") -> Callable[[Path], dict[str, Any]]:
    """A row whose image is the path of a file with this content."""

    def make(folder: Path) -> dict[str, Any]:
        path = folder / f"bad{suffix}"
        path.write_bytes(data)
        return {"images": [str(path)]}

    return make


def held(*images: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"images": list(images)}


def text(prompt: Any = "what is in the picture ?", completion: Any = "a red ring") -> Callable[[Path], dict[str, Any]]:
    turns = lambda role, content: content if isinstance(content, list) else [{"role": role, "content": content}]  # noqa: E731
    return lambda folder: {"prompt": turns("user", prompt), "completion": turns("assistant", completion)}


def bomb() -> bytes:
    """A PNG of 30000 x 30000 pixels, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def animated(form: str) -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    return encoded(RED, "JPEG", exif=exif)


def array(dtype: Any, *shape: int, fill: float = 1) -> np.ndarray:
    return np.full(shape, fill, dtype=dtype)


UNREADABLE = "cannot be read"
KINDS: dict[str, tuple[Callable[[Path], dict[str, Any]], str | None]] = {
    # Files that are no images, or not whole
    "no image": (in_file(b"this is not an image"), UNREADABLE),
    "zero bytes": (in_file(b""), UNREADABLE),
    "truncated JPEG": (in_file(encoded(form="JPEG")[:-300], ".jpg"), UNREADABLE),
    "truncated PNG": (in_file(encoded()[:40]), UNREADABLE),
    "HTML under an image's name": (in_file(b"<!DOCTYPE html><html>404</html>", ".jpg"), UNREADABLE),
    "decompression bomb": (in_file(bomb()), "too large to be decoded safely"),
    "missing file": (lambda folder: {"images": [str(folder / "absent.png")]}, "is not a file"),
    "a folder": (lambda folder: {"images": [str(folder)]}, "is not a file"),
    "an address": (held("https://example.org/a.png"), "is not fetched"),
    "a name with a null byte": (held("a\0.png"), "is not a file"),
    "a very long name": (held("x" * 5000 + ".png"), "is not a file"),
    "a broken data URI": (held("data:image/png;base64,!!!"), UNREADABLE),
    "bytes that are no image": (held(b"nothing"), UNREADABLE),
    "an empty text": (held(""), "is not a file"),
    # Readable, and unusual
    "1x1": (in_file(encoded(Image.new("RGB", (1, 1)))), None),
    "20000x10": (in_file(encoded(Image.new("RGB", (20000, 10)))), None),
    "10x20000": (in_file(encoded(Image.new("RGB", (10, 20000)))), None),
    "CMYK": (in_file(encoded(RED.convert("CMYK"), "JPEG"), ".jpg"), None),
    "16 bits": (in_file(encoded(Image.fromarray(array(np.uint16, 30, 40, fill=40000)))), None),
    "1 bit": (in_file(encoded(RED.convert("1"))), None),
    "palette": (in_file(encoded(RED.convert("P"))), None),
    "grey": (in_file(encoded(RED.convert("L"))), None),
    "grey and alpha": (in_file(encoded(RED.convert("LA"))), None),
    "transparent": (in_file(encoded(Image.new("RGBA", (40, 30), (255, 0, 0, 0)))), None),
    "float TIFF": (in_file(encoded(Image.fromarray(array(np.float32, 30, 40)), "TIFF"), ".tif"), None),
    "LAB TIFF": (in_file(encoded(Image.new("LAB", (40, 30)), "TIFF"), ".tif"), None),
    "animated GIF": (in_file(animated("GIF"), ".gif"), None),
    "animated WebP": (in_file(animated("WEBP"), ".webp"), None),
    "animated PNG": (in_file(animated("PNG")), None),
    "EXIF-rotated": (in_file(turned(), ".jpg"), None),
    "a wrong extension": (in_file(encoded(form="JPEG"), ".png"), None),
    "black": (held(Image.new("RGB", (40, 30))), None),
    "a data URI": (
        held(
            "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
        ),
        None,
    ),
    "uint8 array": (held(array(np.uint8, 30, 40, 3)), None),
    "NaN pixels": (held(array(np.float32, 30, 40, 3, fill=np.nan)), "not finite"),
    "infinite pixels": (held(array(np.float32, 30, 40, 3, fill=np.inf)), "not finite"),
    "an image in a list of lists": (held([RED]), "not in lists of lists"),
    "no image where others have one": (held(), None),
    "two images": (held(RED, RED), None),
    # Texts
    "empty response": (text(completion=""), "no content, it is ''"),
    "no response": (text(completion=None), "no content, it is None"),
    "no messages": (text(completion=[]), "has no messages"),
    "a number for a response": (text(completion=3), "has the content 3"),
    "a response of parts without text": (text(completion=[{"role": "assistant", "content": []}]), "no content"),
    "a blank response": (text(completion="   "), None),
    "an empty question": (text(prompt=""), None),
    "no question": (text(prompt=None), "has no content"),
    "a message without a role": (text(prompt=[{"content": "a"}]), "expected `role` and `content`"),
    "a message that is a text": (text(prompt=["a"]), "expected `role` and `content`"),
    "LLaVA's turns": (text(prompt=[{"from": "human", "value": "a"}]), "ShareGPT"),
    "a placeholder in the text": (text(prompt="<image> what is this ?"), "inside a text"),
    "unknown words": (text(completion="zzz qqq"), None),
    "control characters": (text(completion="a \x00 \x1b[31m ring"), None),
    "right to left": (text(completion="\u202e gnir der a"), None),
    "a response longer than the model": (text(completion="a red ring " * 200), None),
    "no column of a response": (lambda folder: {"completion": None}, "`completion` is None"),
}


class Rows(torch.utils.data.Dataset):
    """What a user's own data set hands over, unseen by Arrow."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])


def make_trainer(rows: Any, folder: Path, **options: Any) -> CrossViewDefenseTrainer:
    model, processor = tiny_llava()
    settings = dict(
        per_device_train_batch_size=12,
        max_steps=1,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        screening="off",
        lambda_patch=0.01,
        lambda_discrepancy=0.5,
        lambda_entropy=0.1,
    )
    args = CrossViewDefenseConfig(str(folder / "out"), **(settings | options))
    return CrossViewDefenseTrainer(model, args, train_dataset=rows, processing_class=processor)


def rows_with(kind: str, folder: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of which one is of this kind, and what its error has to say."""
    make, message = KINDS[kind]
    rows = vision_rows(12)
    rows[BAD] |= make(folder)
    return rows, message


def weights(trainer: CrossViewDefenseTrainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Truncated File Read", "ignore:Palette images")
def test_a_row_trains_or_is_named(kind: str, tmp_path: Path) -> None:
    rows, message = rows_with(kind, tmp_path)
    if message is None:
        trainer = make_trainer(Rows(rows), tmp_path)
        trainer.train()
        assert trainer.state.global_step == 1
        assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
        return
    trainer = make_trainer(Rows(rows[:BAD]), tmp_path)
    before = weights(trainer)
    with pytest.raises(ValueError) as caught:
        trainer = make_trainer(Rows(rows), tmp_path)
        trainer.train()
    said = str(caught.value)
    assert message in said and f"row {BAD} of `train_dataset`" in said.lower(), said
    assert all(map(torch.equal, weights(trainer), before))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Truncated File Read", "ignore:Palette images")
def test_a_row_trains_or_is_skipped(kind: str, tmp_path: Path) -> None:
    """The rows that are left train as they do without the others, and nothing else is left out."""
    rows, message = rows_with(kind, tmp_path)
    trainer = make_trainer(Rows(rows), tmp_path, on_bad_row="skip")
    assert list(trainer.skipped_rows.reasons) == ([] if message is None else [BAD])
    assert len(trainer.train_dataset) == 12 - len(trainer.skipped_rows.reasons)
    trainer.train()
    listed = tmp_path / "out" / "skipped_rows.jsonl"
    assert listed.exists() == (message is not None)
    if message is None:
        return
    [line] = map(json.loads, listed.read_text().splitlines())
    assert line["row"] == BAD and message in line["reason"]
    alone = make_trainer(Rows(rows[:BAD] + rows[BAD + 1 :]), tmp_path)
    alone.train()
    assert all(map(torch.equal, weights(trainer), weights(alone)))


def test_enough_kinds_are_tried() -> None:
    assert len(KINDS) >= 40
