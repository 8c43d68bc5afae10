# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Stamps of Tux Paint (Debian package `tuxpaint-stamps-default`, GPL-2): photographs and drawings, one sentence each.

Notable: the sentence is translated into dozens of languages. A few sentences are jokes or facts about the thing shown.
"""

from __future__ import annotations

from pathlib import Path

from .packages import find_debian
from .picture import Picture, words_of


LANGUAGES = ("de", "es", "fr", "it")


def read_tux_paint(packages: str | Path | None = None) -> list[Picture]:
    """The stamps that are PNG files with a sentence, in the order of their paths; see [`load_pictures`]."""
    folder = find_debian(packages, "tuxpaint-stamps-default", "tuxpaint/stamps")
    pictures = []
    for text in sorted(folder.rglob("*.txt")):
        image = text.with_suffix(".png")
        sentence, *lines = text.read_text("utf-8", errors="replace").splitlines() or [""]
        if not image.is_file() or not sentence.strip():
            continue
        key = text.relative_to(folder).with_suffix("").as_posix()
        translated = dict(line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
        pictures.append(
            Picture(
                source="tux_paint",
                key=key,
                image=image,
                caption=" ".join(sentence.split()),
                names=(words_of(text.stem),),
                category=words_of(key.split("/")[0]),
                family=f"{Path(key).parent.as_posix()}/{words_of(text.stem)}",
                translations={
                    code: translated[code].strip() for code in LANGUAGES if translated.get(code, "").strip()
                },
            )
        )
    return pictures
