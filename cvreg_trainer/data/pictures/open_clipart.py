# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Open Clip Art (Debian packages `openclipart-png`, `openclipart-svg`, public domain): drawings by hundreds of people.

Notable: title and keywords stand in the SVG file, the pixels in the PNG file of the same name. Titles that name a
collection ("Part of the Flat Icon Collection") say nothing of the picture: the file's name stands in for them, without
its author's. Some titles are Italian, French or a bare number; they are kept and marked as cryptic.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path

from .packages import find_debian
from .picture import Picture, distinct, words_of


_TITLE = re.compile(r"<dc:title[^>]*>(.*?)</dc:title>", re.DOTALL)
_CREATOR = re.compile(r"<dc:creator[^>]*>.*?<dc:title[^>]*>(.*?)</dc:title>.*?</dc:creator>", re.DOTALL)
_KEYWORD = re.compile(r"<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL)
_COLLECTION = re.compile(
    r"part of|theme|collection|clipart|icons?\b|various|general|maps$|signs$|http|gramastar", re.I
)
_NO_KEYWORDS = {"hash", "unsorted", "sign", "signs and symbols", "symbol", "icon", "icons", "theme"}
_REPEATED = 6  # a title of more pictures than this names a series
# Gradients and star polygons by the hundred, which nobody named one by one
_SERIES = ("special/", "shapes/stars/")


def read_open_clipart(packages: str | Path | None = None) -> list[Picture]:
    """The drawings that have a PNG file and words, in the order of their paths; see [`load_pictures`]."""
    drawn = find_debian(packages, "openclipart-png", "openclipart/png")
    described = find_debian(packages, "openclipart-svg", "openclipart/svg")
    texts = {path: path.read_text("utf-8", errors="replace") for path in sorted(described.rglob("*.svg"))}
    titles = {path: _first(_TITLE, text) for path, text in texts.items()}
    counts = Counter(titles.values())
    pictures = []
    for path, text in texts.items():
        key = path.relative_to(described).with_suffix("").as_posix()
        image = drawn / f"{key}.png"
        if not image.is_file() or key.startswith(_SERIES):
            continue
        title = re.sub(r"[_\s]+", " ", titles[path]).strip()
        named = bool(re.search(r"[^\W\d_]{3}", title)) and counts[titles[path]] <= _REPEATED
        if not named or _COLLECTION.search(title):
            title, named = _name_of_file(path.stem, _first(_CREATOR, text)), False
        keywords = [_clean(word).replace("_", " ").lower() for word in _KEYWORD.findall(text)]
        keywords = [word for word in keywords if _is_word(word) and word not in {title.lower(), *_NO_KEYWORDS}]
        if not title:
            continue
        pictures.append(
            Picture(
                source="open_clipart",
                key=key,
                image=image,
                caption=title,
                names=distinct(keywords)[:6],
                category=words_of(key.split("/")[0]),
                family=f"{Path(key).parent.as_posix()}/{words_of(path.stem)}",
                cryptic=not named or bool(re.search(r"\d", title)),
            )
        )
    return pictures


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return _clean(found[1]) if found else ""


def _clean(text: str) -> str:
    return " ".join(html.unescape(text).split())


def _is_word(keyword: str) -> bool:
    return bool(re.fullmatch(r"[a-z][a-z '\-]{2,29}", keyword))


def _name_of_file(stem: str, creator: str) -> str:
    """The file's name as words, without those of its author's name, which end many of them."""
    authors = set(words_of(creator).split())
    return " ".join(word for word in words_of(stem).split() if word not in authors and len(word) > 1)
