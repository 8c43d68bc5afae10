# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Pictures as they are stored: opened upright and in RGB, or not at all."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from cvreg_trainer.screening.audit import stored_pictures
from cvreg_trainer.screening.audit.stored_pictures import NotOpenedError, open_picture, picture_reader


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_picture_is_upright_and_in_rgb():
    turned = Image.new("L", (40, 20), 90)
    turned.getexif()[0x0112] = 6
    opened = open_picture({"bytes": encoded(turned, "JPEG", exif=turned.getexif()), "path": None}, side=16)
    assert opened.mode == "RGB" and opened.size == (20, 40)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size():
    opened = open_picture({"bytes": encoded(Image.new("RGB", (800, 400), "navy"), "JPEG")}, side=50)
    assert opened.size == (200, 100)


@pytest.mark.parametrize("make", [np.asarray, lambda values: torch.from_numpy(np.array(values))])
def test_pixels_are_pictures_too(make):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (np.asarray(open_picture(make(pixels), side=16)) == pixels).all()


def test_what_is_not_opened(tmp_path, monkeypatch):
    with pytest.raises(NotOpenedError, match="its file is not here"):
        open_picture({"bytes": None, "path": str(tmp_path / "gone.png")}, side=16)
    file = encoded(Image.new("RGB", (10, 10)))
    monkeypatch.setattr(stored_pictures, "MAX_PIXELS", 99)
    decoded: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "load", lambda image, *_: decoded.append(image))
    with pytest.raises(NotOpenedError, match="too large to be drawn: 10 x 10"):
        open_picture({"bytes": file}, side=16)
    assert not decoded  # its header was enough


def test_a_reader_decodes_nothing_that_is_not_asked_for():
    files = [encoded(Image.new("RGB", (4, 4), (60 * row, 0, 0))) for row in range(3)]
    files[1] = b"no picture"
    rows = [{"bytes": file, "path": None} for file in files]
    dataset = Dataset.from_dict({"image": rows}, features=Features({"image": ImageFeature()})).with_format("torch")
    images_of = picture_reader(dataset)
    assert open_picture(images_of(2)[0], side=16).getpixel((0, 0)) == (120, 0, 0)
    assert images_of(1) == [rows[1]]
