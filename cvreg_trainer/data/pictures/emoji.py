# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Emoji with their standard names (npm): drawings of two vendors, names and tags in several languages.

Pictures: `emoji-datasource-google` (Noto, Apache-2.0) and `emoji-datasource-twitter` (Twemoji, CC-BY 4.0). Words:
`emojibase-data` (MIT, after Unicode's CLDR).

Notable: vendors draw the same thing under the same name, and skin tones differ in a few pixels; their pictures share a
`family`, so that no split separates them. Skin tones are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .packages import find_npm
from .picture import Picture, distinct


LANGUAGES = ("de", "es", "fr", "it")


def read_google_emoji(packages: str | Path | None = None) -> list[Picture]:
    """Google's drawings; see [`load_pictures`]."""
    return _of_datasource(packages, "google")


def read_twitter_emoji(packages: str | Path | None = None) -> list[Picture]:
    """Twitter's drawings; see [`load_pictures`]."""
    return _of_datasource(packages, "twitter")


def _of_datasource(packages: str | Path | None, vendor: str) -> list[Picture]:
    """The drawings of a vendor in Unicode's order, by the data source's own table of which there are."""
    table = find_npm(packages, f"emoji-datasource-{vendor}", "emoji.json")
    folder = table.parent / "img" / vendor / "64"
    entries = json.loads(table.read_bytes())
    paths = {
        _code(entry["unified"]): folder / Path(entry["image"]).name
        for entry in sorted(entries, key=lambda entry: entry["sort_order"])
        if entry[f"has_img_{vendor}"]
    }
    return _named(packages, f"{vendor}_emoji", {code: path for code, path in paths.items() if path.is_file()})


def _named(packages: str | Path | None, source: str, paths: dict[str, Path]) -> list[Picture]:
    english = _words(packages, "en")
    groups = json.loads(find_npm(packages, "emojibase-data", "meta/groups.json").read_bytes())["groups"]
    others = {language: _words(packages, language) for language in LANGUAGES}
    pictures = []
    for code, path in paths.items():
        entry = english.get(code)
        if entry is None or "group" not in entry:  # letters of flags, and drawings beyond the standard
            continue
        pictures.append(
            Picture(
                source=source,
                key=code,
                image=path,
                caption=entry["label"],
                names=distinct(entry.get("tags", []))[:6],
                category=groups[str(entry["group"])].split("-")[0],
                family=code,
                translations={k: words[code]["label"] for k, words in others.items() if code in words},
            )
        )
    return pictures


def _words(packages: str | Path | None, language: str) -> dict[str, Any]:
    path = find_npm(packages, "emojibase-data", f"{language}/data.json")
    return {_code(entry["hexcode"]): entry for entry in json.loads(path.read_bytes())}


def _code(name: str) -> str:
    """The code points without the mark that asks for a coloured drawing, which not all tables write."""
    return "-".join(part for part in name.upper().split("-") if part != "FE0F")
